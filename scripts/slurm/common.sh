# shellcheck shell=bash
# What the jobs of this folder share; they source it. Before `run`, a job sets `command` (what to start) and `what`
# (its name in messages).

job="${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:?this script is for sbatch}}"
task="${SLURM_ARRAY_TASK_ID:-}"
run_dir="${RUN_DIR:-experiments/slurm_$job}${task:+/$task}"
status_file="$run_dir/status.json"
command=() shown="" what="" process="" signal="" num_signals=0 exit_code=127

say() { printf '%(%F %T)T %s\n' -1 "$*" >&2; }
fail() { say "error: $*"; exit 2; }

# Unix time at which Slurm ends the job; Slurm before 23.02 has no variable for it. Empty if the job has no limit.
end_time() {
    if [[ -n "${SLURM_JOB_END_TIME:-}" ]]; then
        echo "$SLURM_JOB_END_TIME"
        return
    fi
    local text
    text="$(SLURM_TIME_FORMAT=standard squeue -h -j "$SLURM_JOB_ID" -o %e 2>/dev/null || true)"
    # date takes no text for midnight.
    if [[ -n "$text" ]]; then date -d "$text" +%s 2>/dev/null || true; fi
}

# Prints nothing if the job has no limit, or Slurm does not say it: then only the signal stops it in time.
time_limit() {
    local end
    end="$(end_time)"
    if [[ -z "$end" ]]; then return; fi
    local minutes=$(((end - $(date +%s)) / 60 - ${STOP_MARGIN:-5}))
    echo "$((minutes > 1 ? minutes : 1))m"
}

forward() {
    signal="$1" num_signals=$((num_signals + 1))
    say "signal $signal: $what is to stop"
    # srun hands SIGUSR1 on to its tasks, but not SIGTERM. Where Slurm itself ends the job, the tasks have that already,
    # and scancel would try again until it meets the next start.
    local state=""
    if [[ "$signal" == TERM && "${command[0]}" == srun ]]; then
        state="$(squeue -h -j "$SLURM_JOB_ID" -o %T 2>/dev/null || true)"
    fi
    case "$state" in
        "") kill -s "$signal" "$process" 2>/dev/null || true ;;
        RUNNING) timeout 5 scancel --signal=TERM "$SLURM_JOB_ID" || true ;;
    esac
}

# Run the command to its end and set exit_code.
run() {
    local seen code
    command -v mlpf >/dev/null || fail "mlpf: not found; activate the environment before sbatch"
    # Beside the run, so that one file server's clock dates both.
    mkdir -p "$(dirname "$run_dir")"
    marker="$(mktemp "$(dirname "$run_dir")/.slurm_${job}_XXXXXX")"
    trap 'rm -f "$marker"' EXIT
    trap 'forward USR1' USR1
    trap 'forward TERM' TERM
    say "start ${SLURM_RESTART_COUNT:-0}: ${shown:-${command[*]}}"
    "${command[@]}" &
    process=$!
    while :; do
        seen="$num_signals" code=0
        wait "$process" || code=$?
        # Older shells forget a code once it was told.
        if ((code != 127)); then exit_code="$code"; fi
        # A signal ends the wait, not the command.
        if ((num_signals == seen)); then break; fi
    done
    trap '' USR1 TERM
    # bash loses the code of a command that ends just when a signal comes, and says -1: see what the command wrote.
    if ((exit_code < 0)); then
        exit_code=1
        if has_state stopped; then exit_code=75; fi
        if has_state finished; then exit_code=0; fi
    fi
}

# True if this start, and no earlier one, wrote the given state.
has_state() { [[ "$status_file" -nt "$marker" ]] && grep -q "\"state\": *\"$1\"" "$status_file"; }

# A command that dies of the warning had not begun.
died_of_warning() { [[ "$signal" == USR1 ]] && ((exit_code == 128 + 10)); }

requeue() {
    local times="${SLURM_RESTART_COUNT:-0}"
    # After scancel there is nothing to continue, and a preempted job is requeued by Slurm itself.
    if [[ "$signal" == TERM ]]; then
        say "stopped by SIGTERM, not requeued; to continue: RUN_DIR=$run_dir sbatch ..."
        exit 75
    fi
    if ((times >= ${MAX_REQUEUES:-100})); then
        say "stopped, and requeued $times times already: giving up"
        exit 75
    fi
    say "stopped before its end: back into the queue"
    scontrol requeue "$job${task:+_$task}" || { say "error: scontrol requeue failed"; exit 75; }
    exit 0
}
