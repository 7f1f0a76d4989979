#!/usr/bin/perl
# SPDX-License-Identifier: Apache-2.0
# A web server that knows nothing of tenured but the environment: its sockets are descriptors 3 and
# up (LISTEN_FDS). One request at a time; on TERM it ends after the one that it has.
use strict;
use warnings;
use IO::Select;
use IO::Socket;

die "no sockets were passed to this process\n" if ($ENV{LISTEN_PID} // 0) != $$;
my $generation = $ENV{TENURE_GENERATION} // 0;
my $stop = 0;
$SIG{TERM} = sub { $stop = 1 };
$SIG{PIPE} = 'IGNORE';

my $listeners = IO::Select->new;
for my $fd (3 .. 2 + $ENV{LISTEN_FDS}) {
    my $listener = IO::Socket->new_from_fd($fd, 'r+') or die "descriptor $fd: $!\n";
    $listener->blocking(0);    # another worker may be faster
    $listeners->add($listener);
}
until ($stop) {
    # Looked at again from time to time: the signal may come just before the wait.
    for my $listener ($listeners->can_read(0.1)) {
        my $client = $listener->accept or next;
        $client->blocking(1);
        my $request = '';
        while ($request !~ /\r\n\r\n/) {
            my $more;
            my $n = sysread $client, $more, 4096;
            last unless $n;
            $request .= $more;
        }
        next if $request eq '';
        my $body = "hello from generation $generation\n";
        my $length = length $body;
        syswrite $client, "HTTP/1.1 200 OK\r\nContent-Length: $length\r\nConnection: close\r\n"
            . "X-Tenure-Generation: $generation\r\n\r\n$body";
        close $client;
    }
}
