#!/bin/sh
# Install what `make setup-sandbox` promises: bubblewrap, and the compilers and runtimes of HumanEval-Mul's eight
# languages that Debian (or Ubuntu) and npm have. What is there stays as it is; what could not be installed is named.
#
#   sh requirements/toolchains.sh [language ...]     all, or some of: sandbox java cpp cs js ts php sh

TYPESCRIPT=5.9.3
[ "$(uname)" = Linux ] || { echo "the sandbox is for Linux: nothing installed"; exit 0; }
wanted=" ${*:-sandbox java cpp cs js ts php sh} "
root=""
[ "$(id -u)" = 0 ] || root="sudo -n"
updated=""

install() { # install <package ...>: quietly; a second time with fresh lists where the first fails
    command -v apt-get >/dev/null || return 1
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return 0
    [ -n "$updated" ] || $root apt-get update -qq >/dev/null 2>&1
    updated=yes
    DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

want() { # want <language> <test that it is there> <package ...>
    language=$1 there=$2
    shift 2
    case "$wanted" in *" $language "*) ;; *) return ;; esac
    if sh -c "$there" >/dev/null 2>&1; then printf '%-8s is there\n' "$language"; return; fi
    install "$@"
    if sh -c "$there" >/dev/null 2>&1; then printf '%-8s installed: %s\n' "$language" "$*"; return; fi
    printf '%-8s could not be installed: apt-get install %s (as root, or with sudo that asks for no password)\n' "$language" "$*"
}

mono=/usr/lib/mono/4.5
want sandbox 'command -v bwrap' bubblewrap
want java 'command -v javac' default-jdk-headless
want cpp 'command -v g++ && test -e /usr/include/openssl/md5.h' g++ libssl-dev
want cs "command -v mono && test -e $mono/mcs.exe -a -e $mono/System.Core.dll -a -e $mono/System.Numerics.dll" \
    mono-mcs libmono-system-core4.0-cil libmono-system-numerics4.0-cil
want js 'command -v node' nodejs
want php 'php -r "exit(function_exists(\"mb_strlen\") ? 0 : 1);"' php-cli php-mbstring
want sh 'command -v bash && command -v awk && command -v bc && command -v rev' bash mawk bc bsdextrautils

tsc='ls /usr/local/lib/node_modules/typescript/lib/tsc.js || ls /usr/lib/node_modules/typescript/lib/tsc.js ||
    ls /usr/share/nodejs/typescript/lib/tsc.js'
case "$wanted" in *" ts "*)
    if ! sh -c "$tsc" >/dev/null 2>&1 && command -v npm >/dev/null; then
        $root npm install -g --prefix /usr/local --no-audit --no-fund --silent "typescript@$TYPESCRIPT" >/dev/null 2>&1
    fi
    want ts "$tsc" node-typescript
    ;;
esac
