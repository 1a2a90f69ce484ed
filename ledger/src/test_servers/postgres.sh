# Keeps one PostgreSQL server for a test process. Commands come on standard input, one a line, and each is
# answered with one line. The end of the input means that the test process has ended, however it did: then
# the server is stopped and its folder removed.
bin=$1
# The port of a server to be a replica of, or nothing.
primary=$2
trap '' HUP INT TERM PIPE
folder=$(mktemp -d "${TMPDIR:-/tmp}/profile-ledger-postgres.XXXXXXXX") || exit 1
data=$folder/data
server=

answer() { printf '%s\n' "$1"; }

# The server and its children, which outlive it for a moment.
everyone() { printf '%s ' "$server"; cat "/proc/$server/task/$server/children" 2>/dev/null; }

gone() {
    wait "$server" 2>/dev/null
    server=
}

# A child that dies a moment later would keep the next server from starting.
kill_all() {
    killed=$(everyone)
    kill -KILL $killed 2>/dev/null
    gone
    for process in $killed; do
        tries=0
        while kill -0 "$process" 2>/dev/null && [ $tries -lt 100 ]; do
            tries=$((tries + 1))
            sleep 0.02
        done
    done
}

start() {
    "$bin/postgres" -D "$data" -p "$1" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c max_connections=200 -c shared_buffers=32MB -c autovacuum_naptime=5 $2 \
        </dev/null >>"$folder/log" 2>&1 &
    server=$!
    tries=0
    until ready; do
        tries=$((tries + 1))
        if [ $tries -gt 600 ] || ! kill -0 "$server" 2>/dev/null; then
            kill -KILL "$server" 2>/dev/null
            gone
            return 1
        fi
        sleep 0.05
    done
}

# What a server writes into this file about itself; the one before it may have left the file.
ready() {
    [ "$(sed -n '1p;8p' "$data/postmaster.pid" 2>/dev/null | tr -d ' ' | tr '\n' ' ')" = "$server ready " ]
}

make() {
    if [ -n "$primary" ]; then
        "$bin/pg_basebackup" -h 127.0.0.1 -p "$primary" -U postgres -D "$data" -R -X stream -c fast --no-sync
    else
        "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C --no-sync
    fi
}

if make >"$folder/log" 2>&1; then
    answer done
else
    cat "$folder/log" >&2
    answer failed
fi

while read -r command port options; do
    case $command in
    start) start "$port" "$options" ;;
    stop) kill -INT "$server" && gone ;;
    kill) kill_all ;;
    # The server first: then no process of it begins or ends unseen.
    freeze) kill -STOP "$server" && { kill -STOP $(everyone) 2>/dev/null || true; } ;;
    thaw) kill -CONT $(everyone) 2>/dev/null || true ;;
    esac && answer done && continue
    tail -n 20 "$folder/log" >&2
    answer failed
done

if [ -n "$server" ]; then
    kill_all
fi
rm -rf "$folder"
