import os

from flask import Flask, request

app = Flask(__name__)


@app.get("/")
def index():
    return f"Hello from Flask, release {os.environ.get('QUARRY_RELEASE', 'none')}\n"


@app.get("/env/<name>")
def env(name):
    return os.environ.get(name, ""), 200, {"content-type": "text/plain"}


@app.post("/echo")
def echo():
    return request.get_data(), 200, {"content-type": "application/octet-stream"}
