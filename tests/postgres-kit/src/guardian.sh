# Runs PostgreSQL for a process that may die at any moment, and clears up after both.
#
#   sh -c THIS guardian DIRECTORY BINARIES [PARAMETER-OF-POSTGRES ...]
#
# Orders come on standard input, a line each; news go to standard output. The end of the input is
# the end of the process that we serve: the kernel closes a pipe even for one that was killed.
# `DIRECTORY/pid` exists from just before a start until just after the end of that postmaster.
dir=$1 bin=$2
shift 2

# With the process that we serve dead, telling it something must not be our end too.
trap '' PIPE

while read -r order port; do
    case $order in
    initialise)
        "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync \
            </dev/null >>"$dir/log" 2>&1
        echo "initialised $?"
        ;;
    start)
        : >"$dir/pid"
        {
            # Somebody has to wait for the postmaster: while a killed one is a zombie, its
            # postmaster.pid is taken for that of a living server.
            sh -c 'echo $$ >"$0/pid"; echo "running $$"; exec "$@" >>"$0/log" 2>&1' \
                "$dir" "$bin/postgres" -D "$dir/data" -p "$port" "$@"
            status=$?
            rm -f "$dir/pid"
            echo "ended $status"
        } </dev/null 2>/dev/null &
        ;;
    esac
done

# Again and again, because the first may come before the postmaster is one.
while [ -e "$dir/pid" ]; do
    pid=$(cat "$dir/pid") && [ -n "$pid" ] && kill -s QUIT "$pid"
    sleep 0.1
done 2>/dev/null
wait

# A postmaster that was killed and not started again has left its lock on the data behind: a few
# bytes of System V shared memory, which outlive every process.
if [ -f "$dir/data/postmaster.pid" ]; then
    lock=$(sed -n 7p "$dir/data/postmaster.pid")
    [ -z "$lock" ] || ipcrm -m "${lock##* }"
fi 2>/dev/null

# The last children of a killed postmaster may still write.
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$dir" 2>/dev/null && break
    sleep 0.5
done
