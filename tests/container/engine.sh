#!/usr/bin/env bash
# A private Docker engine, and the project's image built with it.
#
#   engine.sh start ROOT        start dockerd, which keeps all under ROOT; print its address
#   engine.sh build ROOT TAG    build the image, on a base image made here if there is none
#   engine.sh stop ROOT         end dockerd; images stay in ROOT for the next start
#   engine.sh clear ROOT        stop, then remove ROOT
#
# Needs root and Debian's docker.io and debootstrap. No registry of images is asked: the base image
# comes from the mirror that this machine's apt uses, and torch from where its pip finds it. The
# engine sets no firewall rule and no bridge, so containers have the network "host" or "none".
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
docker=/usr/bin/docker # Debian's: it builds with BuildKit as it is
python=${PYTHON:-python3}

[ $# -ge 2 ] || { sed -n 's/^#   //p' "${BASH_SOURCE[0]}" >&2; exit 2; }
action=$1
mkdir -p "$2"
root=$(cd "$2" && pwd -P)
# sockets lie under a short name: the path of one must not exceed 107 characters
place=/run/deepmrseg-docker-$(printf %s "$root" | cksum | cut -d " " -f 1)
export DOCKER_HOST=unix://$place/docker.sock DOCKER_BUILDKIT=1 DOCKER_CONFIG=$root/config

answers() { $docker version >/dev/null 2>&1; }

running() { [ -s "$root/dockerd.pid" ] && kill -0 "$(cat "$root/dockerd.pid")" 2>/dev/null; }

start() {
    if running && answers; then return; fi
    mkdir -p "$place"
    rm -f "$root/dockerd.pid" "$place/docker.sock"
    setsid dockerd --data-root "$root/data" --exec-root "$place/exec" --host "$DOCKER_HOST" \
        --pidfile "$root/dockerd.pid" --group "$(id -g)" \
        --bridge=none --iptables=false --ip6tables=false --ip-masq=false \
        >"$root/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 300); do
        if answers; then return; fi
        sleep 0.1
    done
    echo "dockerd does not answer; the end of its log:" >&2
    tail -n 20 "$root/dockerd.log" >&2
    exit 1
}

stop() {
    if running; then
        local pid
        pid=$(cat "$root/dockerd.pid")
        kill "$pid"
        for _ in $(seq 300); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.1
        done
    fi
    # what the engine leaves mounted, the innermost first
    awk -v root="$root/" -v place="$place/" 'index($5, root) == 1 || index($5, place) == 1 {
        print $5}' /proc/self/mountinfo | sort -r | xargs -r -n 1 umount
    rm -rf "$place"
}

# The image that the Dockerfile starts from, such as debian:bookworm-slim, made by debootstrap.
base() {
    local image suite mirror folder=$root/debootstrap
    image=$(sed -n 's/^FROM \(debian:[^ ]*\).*/\1/p' "$project/Dockerfile")
    if $docker image inspect "$image" >/dev/null 2>&1; then return; fi
    suite=${image#debian:}
    suite=${suite%-slim}
    # shellcheck disable=SC2016 # the $ are apt's
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' \
        'Created-By: Packages' |
        awk -v suite="$suite" '$1 == "Debian" && $2 == suite && $3 == "main" {print $4; exit}')
    [ -n "$mirror" ] || { echo "apt here knows no mirror of Debian $suite" >&2; exit 1; }
    rm -rf "$folder"
    debootstrap --variant=minbase "$suite" "$folder" "$mirror" >"$root/debootstrap.log" ||
        { tail -n 20 "$root/debootstrap.log" >&2; exit 1; }
    # as in the published image: no lists, no archives, no documentation
    rm -rf "$folder"/var/lib/apt/lists/* "$folder"/var/cache/apt/* "$folder"/usr/share/doc/* \
        "$folder"/usr/share/man/* "$folder"/usr/share/locale/*
    tar -C "$folder" -c . | $docker import - "$image" >/dev/null
    rm -rf "$folder"
}

# What pip was told about its index on this machine; only the build sees it.
secrets() {
    local listed certificates
    listed=$($python -m pip config list)
    certificates=$(sed -n "s/^\(:env:\|global\)\.cert='\(.*\)'$/\2/p" <<<"$listed" | head -n 1)
    {
        echo "[global]"
        sed -n "s/^\(:env:\|global\)\.\(index-url\|trusted-host\)='\(.*\)'$/\2 = \3/p" <<<"$listed" |
            awk '!seen[$1]++'
        if [ -n "$certificates" ]; then echo "cert = /run/secrets/ca.pem"; fi
    } >"$root/pip.conf"
    echo "--secret id=pip.conf,src=$root/pip.conf"
    if [ -n "$certificates" ]; then echo "--secret id=ca,src=$certificates"; fi
}

build() {
    local tag=$1 context=$root/context pinned options
    base
    pinned=$(grep '^torch==' "$project/constraints.txt")
    # a context of its own, so that no wheel is put into the project
    rm -rf "$context"
    mkdir -p "$context" "$root/wheels"
    ls "$root"/wheels/torch-*.whl >/dev/null 2>&1 ||
        $python -m pip download --quiet --no-deps --only-binary :all: --python-version 3.11 \
            --dest "$root/wheels" "$pinned"
    cp -al "$root/wheels" "$context/wheels"
    (cd "$project" && cp -a Dockerfile .dockerignore pyproject.toml constraints.txt README.md \
        LICENSE tools deepmrseg_bids "$context")
    options=$(secrets)
    # shellcheck disable=SC2086 # the options are words
    $docker build --network host --progress plain --tag "$tag" $options "$context"
}

case $action in
start)
    start
    echo "$DOCKER_HOST"
    ;;
stop) stop ;;
build) build "$3" ;;
clear)
    stop
    rm -rf "$root"
    ;;
*) "$0" ;;
esac
