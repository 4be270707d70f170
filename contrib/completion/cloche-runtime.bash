# bash completion for cloche-runtime: the candidates come from its own help.

_cloche_runtime() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local command="" root=() i

    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --root) root=(--root "${COMP_WORDS[i + 1]}") ;&
            --log | --log-format | --log-level | --rootless | --criu | --cgroup-manager) ((i++)) ;;
            -*) ;;
            *) command=${COMP_WORDS[i]}; break ;;
        esac
    done
    case $before in
        --format | -f) [[ $command == list || $command == ps ]] &&
            { COMPREPLY=($(compgen -W "table json" -- "$word")); return; } ;;
        --log-level) COMPREPLY=($(compgen -W "error warning debug" -- "$word")); return ;;
        --log-format) COMPREPLY=($(compgen -W "text json" -- "$word")); return ;;
        --rootless) COMPREPLY=($(compgen -W "true false auto" -- "$word")); return ;;
        --cgroup-manager) COMPREPLY=($(compgen -W "cgroupfs systemd disabled" -- "$word")); return ;;
        -b | --bundle | --root | --work-path | --image-path)
            COMPREPLY=($(compgen -d -- "$word")); return ;;
        --log | --pid-file | --console-socket | --pidfd-socket | -p | --process | --config | -r | --resources)
            compopt -o filenames 2>/dev/null
            COMPREPLY=($(compgen -f -- "$word")); return ;;
    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$("$program" ${command:+"$command"} --help 2>/dev/null |
            grep -oE -- '--[a-z][a-z0-9-]+' | sort -u) --help" -- "$word"))
    elif [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "$("$program" --help 2>/dev/null |
            sed -n '/^COMMANDS:/,/^$/s/^ \{3\}\([a-z]*\) .*/\1/p')" -- "$word"))
    elif [[ $command == help ]]; then
        COMPREPLY=($(compgen -W "$("$program" --help 2>/dev/null |
            sed -n '/^COMMANDS:/,/^$/s/^ \{3\}\([a-z]*\) .*/\1/p')" -- "$word"))
    elif [[ $before == mounts ]]; then
        COMPREPLY=($(compgen -W "add remove" -- "$word"))
    elif [[ $command == mounts && ${COMP_WORDS[COMP_CWORD - 2]} =~ ^(add|remove)$ ]]; then
        compopt -o filenames 2>/dev/null
        COMPREPLY=($(compgen -f -- "$word"))
    elif [[ ! $command =~ ^(create|run|restore|spec|features|version|list)$ ]]; then
        COMPREPLY=($(compgen -W "$("$program" "${root[@]}" list -q 2>/dev/null)" -- "$word"))
    fi
}

complete -F _cloche_runtime cloche-runtime
