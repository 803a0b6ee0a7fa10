#!/usr/bin/perl
# Proxmox VE's hookscript: lets a VM come only where this node takes what its guest has set.
#
# Called as `vdpad-hook.pl VMID PHASE`. README.md has what it does at which phase; ../README.md has what
# lies in $moves, and who puts it there. It needs nothing but Perl's own modules.
use strict;
use warnings;
use IO::Socket::UNIX;
use JSON::PP;

my $moves = $ENV{VDPAD_MOVES} // '/var/lib/vdpad-moves';
my $daemon = $ENV{VDPAD_SOCKET} // '/run/vdpad/io.vdpad';
my $timeout = 10; # in seconds; the start waits for it
my $json = JSON::PP->new->utf8->canonical;
$SIG{PIPE} = 'IGNORE';

# Varlink: a call and its reply are JSON and a NUL byte each. Dies with the error where there is one.
sub call {
    my ($path, $method, %parameters) = @_;
    my $whose = $method =~ /BackEnd/ ? 'vdpad-vhost-user' : 'vdpad';
    my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path)
        or die "$path: $!; is $whose running?\n";
    local $SIG{ALRM} = sub { die "$path: no reply within $timeout s\n" };
    alarm $timeout;
    local $/ = "\0";
    $socket->print($json->encode({ method => $method, parameters => \%parameters }) . $/);
    $socket->flush;
    my $said = $socket->getline;
    alarm 0;
    die "$path: the connection ended before the reply\n" if !defined $said;
    chomp $said;
    my $reply = $json->decode($said);
    die "$reply->{error}: $reply->{parameters}{message}\n" if defined $reply->{error};
    return $reply->{parameters};
}

sub text_of { # FILE: what is in it; undef where it is not there
    my ($file) = @_;
    return undef if !-e $file;
    open my $from, '<:raw', $file or die "$file: $!\n";
    local $/;
    my $text = <$from>;
    $text =~ s/\s+\z//;
    return $text;
}

sub json_of { # FILE: the object in it
    my ($file) = @_;
    my $text = text_of($file) // die "expected $file\n";
    my $object = eval { $json->decode($text) };
    die "$file: expected a JSON object\n" if ref $object ne 'HASH';
    return $object;
}

# A state in JSON, or what a back end has captured, which has it within.
sub state_of {
    my ($nic) = @_;
    my $state = json_of("$nic.state");
    return $state if !exists $state->{state};
    return $state->{state} // die "$nic.state: the back end knew of no guest, or no state can say it\n";
}

sub check {
    my ($nic) = @_;
    my $back_end = text_of("$nic.backend");
    my $found = defined $back_end
        ? call(socket_of($back_end), 'io.vdpad.BackEnd.Check', state => state_of($nic))
        : call($daemon, 'io.vdpad.Daemon.Check', state => state_of($nic), target => json_of("$nic.target"));
    return if $found->{compatible};
    my @problems = map { "$_->{path}: $_->{message}" } @{ $found->{problems} };
    die 'the device cannot take its state: ' . join('; ', @problems) . "\n";
}

sub socket_of { # of a back end, by its name or its path
    my ($name) = @_;
    return $name =~ m{/} ? $name : "/run/vdpad/vhost-user/$name/io.vdpad";
}

sub prepare {
    my ($nic) = @_;
    my $commit = text_of("$nic.commit") // return;
    my ($migration, $committer) = split ' ', $commit;
    call($daemon, 'io.vdpad.Daemon.Prepare', migration => $migration, committer => $committer + 0,
        state => state_of($nic), target => json_of("$nic.target"));
}

sub cancel { # what has ended stays as it is
    my ($nic) = @_;
    my $commit = text_of("$nic.commit") // return;
    my ($migration) = split ' ', $commit;
    eval { call($daemon, 'io.vdpad.Daemon.Cancel', migration => $migration) };
    die $@ if $@ && $@ !~ /NoSuchMigration/;
}

# The cards, by whatever file there is of each, so that none without a state is let in.
sub cards {
    my ($vmid) = @_;
    my %nics = map { s/\.\w+\z//r => 1 } glob "$moves/$vmid/*.{state,target,backend,commit}";
    my @sorted = sort keys %nics;
    return @sorted;
}

# Of every card, so that all refusals are told, in the task's log; how many there were.
sub each_card {
    my ($vmid, $action) = @_;
    my $refused = 0;
    for my $nic (cards($vmid)) {
        next if eval { $action->($nic); 1 };
        print STDERR "$vmid, ", $nic =~ s{.*/}{}r, ": $@";
        $refused++;
    }
    return $refused;
}

my ($vmid, $phase) = @ARGV;
die "expected VMID PHASE, as Proxmox VE gives them\n" if @ARGV != 2 || $vmid !~ /\A\d+\z/;

# Proxmox VE sets it where a VM comes; any other start is none of ours.
if ($phase eq 'pre-start' && defined $ENV{PVE_MIGRATED_FROM}) {
    if (-d "$moves/$vmid" && !cards($vmid)) {
        print STDERR "$vmid: no state came for any card; expected CARD.state in $moves/$vmid\n";
        exit 1;
    }
    exit 1 if each_card($vmid, \&check);
    if (each_card($vmid, \&prepare)) {
        each_card($vmid, \&cancel); # nothing else is called where this fails
        exit 1;
    }
} elsif ($phase eq 'post-stop') {
    each_card($vmid, \&cancel);
}
exit 0;
