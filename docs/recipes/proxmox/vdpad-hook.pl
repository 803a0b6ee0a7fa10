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
    local $SIG{ALRM} = sub { die "$path: no reply within $timeout s\n" };
    alarm $timeout; # who does not accept lets a connection wait too
    my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $path)
        or die "$path: $!; is $whose running?\n";
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
    my ($migration, $committer) = $commit =~ /\A(\S+) +(\d+)\z/
        or die "expected a migration's name and a uid in $nic.commit\n";
    my %wish = (migration => $migration, committer => $committer + 0,
        state => state_of($nic), target => json_of("$nic.target"));
    return if eval { call($daemon, 'io.vdpad.Daemon.Prepare', %wish); 1 };
    my $why = $@;
    # Where nobody says whether it was, it is given up. A name that is refused may be another guest's.
    eval { cancel($nic) } if $why !~ /\A(?:io\.vdpad|org\.varlink)\./;
    die $why;
}

sub cancel { # what has ended stays as it is
    my ($nic) = @_;
    my $commit = text_of("$nic.commit") // return;
    my ($migration) = split ' ', $commit or return;
    eval { call($daemon, 'io.vdpad.Daemon.Cancel', migration => $migration) };
    die $@ if $@ && $@ !~ /NoSuchMigration/;
}

# The cards, by whatever file there is of each, so that none without a state is let in.
sub cards {
    my ($vmid) = @_;
    my $folder = "$moves/$vmid";
    return () if !-e $folder;
    opendir my $files, $folder or die "$folder: $!\n";
    my $card = qr/\A([^.].*)\.(?:state|target|backend|commit)\z/;
    my %nics = map { /$card/ ? ("$folder/$1" => 1) : () } readdir $files;
    my @sorted = sort keys %nics;
    return @sorted;
}

# Of every card, so that all refusals are told, in the task's log; how many there were.
sub each_of {
    my ($vmid, $action, @nics) = @_;
    my $refused = 0;
    for my $nic (@nics) {
        next if eval { $action->($nic); 1 };
        print STDERR "$vmid, ", $nic =~ s{.*/}{}r, ": $@";
        $refused++;
    }
    return $refused;
}

# Up to the first that cannot be: nothing else is called where this fails, so those before are given up.
sub prepare_all {
    my ($vmid, @nics) = @_;
    for my $place (0 .. $#nics) {
        next if !each_of($vmid, \&prepare, $nics[$place]);
        each_of($vmid, \&cancel, @nics[0 .. $place - 1]);
        return 0;
    }
    return 1;
}

my ($vmid, $phase) = @ARGV;
die "expected VMID PHASE, as Proxmox VE gives them\n" if @ARGV != 2 || $vmid !~ /\A\d+\z/;

my @nics = cards($vmid);
# Proxmox VE sets it where a VM comes; any other start is none of ours.
if ($phase eq 'pre-start' && defined $ENV{PVE_MIGRATED_FROM}) {
    if (-d "$moves/$vmid" && !@nics) {
        print STDERR "$vmid: no state came for any card; expected CARD.state in $moves/$vmid\n";
        exit 1;
    }
    exit 1 if each_of($vmid, \&check, @nics) || !prepare_all($vmid, @nics);
} elsif ($phase eq 'post-stop') {
    each_of($vmid, \&cancel, @nics);
}
exit 0;
