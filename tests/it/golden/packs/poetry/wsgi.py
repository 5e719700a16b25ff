application = Flask("x")
