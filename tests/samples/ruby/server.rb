# A web application in nothing but Ruby's own library.
require 'socket'

$stdout.sync = true
trap('TERM') { exit }
server = TCPServer.new('0.0.0.0', Integer(ENV.fetch('PORT')))
puts "listening on #{ENV['PORT']}"
loop do
  Thread.start(server.accept) do |client|
    client.gets
    while (line = client.gets) && !line.strip.empty?; end
    text = "Hello from Ruby, release #{ENV['QUARRY_RELEASE']}\n"
    client.write "HTTP/1.1 200 OK\r\nContent-Length: #{text.bytesize}\r\nConnection: close\r\n\r\n#{text}"
    client.close
  end
end
