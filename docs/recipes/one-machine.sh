#!/bin/sh
# Four workers on one machine. STUDY and STORAGE name the study, which `meliuscli search --storage` has made.
set -eu
: "${STUDY:?}" "${STORAGE:=journal}" "${WORKERS:=4}"
MELIUSCLI=${MELIUSCLI:-meliuscli}
export STUDY STORAGE MELIUSCLI
seq "$WORKERS" | xargs -P "$WORKERS" -I{} sh -c '$MELIUSCLI worker --study "$STUDY" --storage "$STORAGE"'
