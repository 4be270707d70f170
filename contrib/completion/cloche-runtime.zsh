#compdef cloche-runtime
# zsh completion for cloche-runtime: the candidates come from its own help.

local command="" word
local -a root found
integer i

for ((i = 2; i < CURRENT; i++)); do
    case $words[i] in
        --root) root=(--root $words[i+1]); ((i++)) ;;
        --log|--log-format|--log-level|--rootless|--criu|--cgroup-manager) ((i++)) ;;
        -*) ;;
        *) command=$words[i]; break ;;
    esac
done
case $words[CURRENT-1] in
    -b|--bundle|--root|--work-path|--image-path) _files -/; return ;;
    --log|--pid-file|--console-socket|--pidfd-socket|-p|--process|--config|--resources) _files; return ;;
    --log-level) compadd error warning debug; return ;;
    --log-format) compadd text json; return ;;
    --format) compadd table json; return ;;
    --rootless) compadd true false auto; return ;;
esac
if [[ $PREFIX == -* ]]; then
    found=(${(f)"$($words[1] ${command:+$command} --help 2>/dev/null | grep -oE -- '--[a-z][a-z0-9-]+' | sort -u)"})
elif [[ -z $command || $command == help ]]; then
    found=(${(f)"$($words[1] --help 2>/dev/null | sed -n '/^COMMANDS:/,/^$/s/^ \{3\}\([a-z]*\) .*/\1/p')"})
elif [[ ! $command =~ '^(create|run|restore|spec|features|version|list)$' ]]; then
    found=(${(f)"$($words[1] $root list -q 2>/dev/null)"})
fi
compadd -a found
