# A web application in nothing but the perl that every Debian has.
#
# /              a greeting with the release; the text of the file `greeting` where there is one
# /env/NAME      a variable
# /slow          the greeting, after a second
# /store/KEY     a value of the linked service `mongo`; POST sets it
use strict;
use warnings;
use IO::Socket::INET;

my $port = $ENV{PORT} || 8080;
my $server = IO::Socket::INET->new(LocalPort => $port, Listen => 64, ReuseAddr => 1) or die "port $port: $!\n";
# As process 1 of a container only signals with a handler arrive.
$SIG{TERM} = $SIG{INT} = sub { print "stopping\n"; exit 0 };
$SIG{CHLD} = 'IGNORE';
$| = 1;
print "listening on $port\n";

while (1) {
    my $client = $server->accept or next;
    if (fork) { close $client; next }
    $SIG{TERM} = 'DEFAULT';
    my ($method, $path) = split ' ', (<$client> // exit);
    my $length = 0;
    while (defined(my $line = <$client>)) {
        last if $line !~ /\S/;
        $length = $1 if $line =~ /^content-length:\s*(\d+)/i;
    }
    read $client, my $body, $length if $length;
    my ($status, $text) = answer($method, $path, $body);
    print "$method $path $status\n";
    print $client "HTTP/1.1 $status OK\r\nContent-Length: ", length $text, "\r\nConnection: close\r\n\r\n$text";
    exit;
}

sub answer {
    my ($method, $path, $body) = @_;
    return (200, greeting()) if $path eq '/';
    sleep 1, return (200, greeting()) if $path eq '/slow';
    return (200, $ENV{$1} // '') if $path =~ m{^/env/(\w+)$};
    return (200, store($method, $1, $body)) if $path =~ m{^/store/(\w+)$};
    return (404, "nothing here\n");
}

sub greeting {
    my $text = 'Hello';
    if (open my $file, '<', 'greeting') { chomp($text = <$file>) }
    return "$text from release $ENV{QUARRY_RELEASE}\n";
}

sub store {
    my ($method, $key, $body) = @_;
    my $to = IO::Socket::INET->new(
        PeerAddr => $ENV{MONGO_PORT_27017_TCP_ADDR}, PeerPort => $ENV{MONGO_PORT_27017_TCP_PORT}, Timeout => 5)
        or return "no store: $!\n";
    print $to $method eq 'POST' ? "SET $key $body\n" : "GET $key\n";
    return scalar(<$to>) // '';
}
