#!/usr/bin/env bash
# Checks images without a container engine. For each role named (default: all), what its
# Containerfile does is done in a temporary folder, read from the Containerfile itself: the
# environment is made and filled, its own RUN steps are run, and its command is started with
# --help. System packages are not installed; pip looks where its configuration says.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: images/check.sh [--help] [ROLE...]     for example: images/check.sh tools retriever

Roles are the folders of images/. Per role it prints what is installed, its size and the
seconds taken; the temporary folder is removed. The first failure ends the check (exit code 1).
Variables:
    PYTHON  interpreter that stands in for the base image's (default: python3.11, else python3)
    ENGINE  engine of the roles that have one (default: rollout-cpu)
    TMPDIR  where the environments are made; the largest needs about 5 GB
TEXT
}

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${PYTHON:-$(command -v python3.11 || command -v python3)}"
work=""
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# The instructions of a Containerfile, one a line: comments dropped, continued lines joined.
instructions() {
    awk '/^[ \t]*(#|$)/ { next }
         { more = sub(/\\$/, ""); text = text $0 }
         !more { print text; text = "" }' "$1"
}

# Image paths become paths below the temporary folder.
moved() {
    sed -E "s#(^|[ =:])/(opt/exsearch|src|tmp)#\1$work/\2#g" <<<"$1"
}

# ENTRYPOINT and the subcommand of CMD, with --help.
help_command() {
    "$python" -c '
import itertools, json, sys
entry, command = map(json.loads, sys.argv[1:])
print(*entry, *itertools.takewhile(lambda word: not word.startswith("-"), command), "--help")
' "$1" "$2"
}

build_step() { # RUN, less what only an engine can do
    local step
    step="$(sed -E 's/^(--mount=[^ ]+ +)+//' <<<"$1")"
    if [[ "$step" == apt-get* ]]; then
        echo "    (not installed here:${step#*--no-install-recommends})" | sed 's/ *&&.*)/)/'
        return
    fi
    echo "    ${step//  / }" | tr -s ' '
    bash -euo pipefail -c "$(moved "$step")"
}

check() {
    local role="$1" file="$root/images/$1/Containerfile" word rest stage=0 entry='[]' command='[]'
    work="$(mktemp -d)"
    mkdir -p "$work"/{bin,opt,src,tmp}
    # Not a link: a venv looks for its standard library beside the interpreter's real place.
    printf '#!/bin/sh\nexec "%s" "$@"\n' "$python" >"$work/bin/python"
    chmod +x "$work/bin/python"
    export PATH="$work/bin:$PATH" PIP_QUIET=2 PIP_PROGRESS_BAR=off
    while read -r word rest <&3; do
        case "$stage $word" in
            *" FROM") stage=$((stage + 1)) ;;
            "1 ARG") # an empty extra index would hide the one that pip is configured with
                [[ "$rest" == ENGINE=* ]] && export ENGINE="${ENGINE:-rollout-cpu}" ;;
            *" ENV") eval "export $(moved "$rest")" ;;
            *" WORKDIR") cd "$(moved "$rest")" ;;
            "1 COPY")
                local -a paths
                read -r -a paths <<<"$rest"
                local target="${paths[-1]}"
                [ "${#paths[@]}" -eq 2 ] || mkdir -p "$target"
                for source in "${paths[@]::${#paths[@]}-1}"; do
                    cp -R "$root/$source" "$target"
                done ;;
            "1 RUN") build_step "$rest" ;;
            "2 ENTRYPOINT") entry="$rest" ;;
            "2 CMD") command="$rest" ;;
        esac
    done 3< <(instructions "$file")
    local started
    started="$(help_command "$entry" "$command")"
    echo "    $started"
    $started >/dev/null
}

[[ "${1:-}" != --help && "${1:-}" != -h ]] || { usage; exit 0; }
(($#)) || set -- $(cd "$root/images" && printf '%s\n' */Containerfile | cut -d/ -f1)
for role in "$@"; do
    if [ ! -f "$root/images/$role/Containerfile" ]; then
        echo "there is no image $role: images/$role/Containerfile is missing" >&2
        exit 2
    fi
done
if (($# > 1)); then # each in a process of its own: the roles' variables must not mix
    for role in "$@"; do "${BASH_SOURCE[0]}" "$role"; done
    exit 0
fi
echo "$1:"
check "$1"
packages="$(find "$work/opt/exsearch/lib" -name '*.dist-info' | wc -l)"
echo "$1: $packages packages, $(du -sm "$work/opt/exsearch" | cut -f1) MB, $SECONDS s"
