# bash completion for cloche: the candidates come from the program's own tables.

_cloche() {
    local typed line
    local -a words=()

    # bash splits words at ":" and "=" too; image names and --name=value are one word to us.
    local before=${COMP_LINE:0:COMP_POINT}
    read -ra words <<<"$before"
    [[ $before == *[[:space:]] ]] && words+=("")
    typed=${words[-1]}

    COMPREPLY=()
    while IFS= read -r line; do
        if [[ $line == :files ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r line; do
                COMPREPLY+=("$line")
            done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
        else
            line=${line%%$'\t'*}
            # What bash takes for the current word is only what is behind the last ":" or "=".
            COMPREPLY+=("${line:$((${#typed} - ${#COMP_WORDS[COMP_CWORD]}))}")
            # The value follows at once.
            [[ $line == *= ]] && compopt -o nospace 2>/dev/null
        fi
    done < <("${words[0]}" __complete -- "${words[@]:1}" 2>/dev/null)
}

complete -F _cloche cloche
