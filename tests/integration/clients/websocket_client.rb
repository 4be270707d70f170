# Calls the calculator over a WebSocket, with faye-websocket. Arguments: URL.
require 'eventmachine'
require 'faye/websocket'
require 'json'

EM.run do
  socket = Faye::WebSocket::Client.new("#{ARGV[0]}/rpc", ['cloche-rpc'])
  socket.on(:open) do
    socket.send(JSON.generate(jsonrpc: '2.0', id: 1, method: 'subtract', params: [42, 23]))
  end
  socket.on(:message) do |event|
    puts "faye #{JSON.parse(event.data)['result']} #{socket.protocol}"
    socket.close
  end
  socket.on(:close) do |event|
    puts event.code
    EM.stop
  end
end
