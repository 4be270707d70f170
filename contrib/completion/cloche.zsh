#compdef cloche
# zsh completion for cloche: the candidates come from the program's own tables.

_cloche() {
    local line word
    local -a candidates

    for line in ${(f)"$(${words[1]} __complete -- ${words[2,CURRENT]} 2>/dev/null)"}; do
        if [[ $line == :files ]]; then
            _files
        else
            word=${line%%$'\t'*}
            # A colon ends the word in _describe's list.
            candidates+=("${word//:/\\:}${${(M)line%$'\t'*}:+:${line#*$'\t'}}")
        fi
    done
    (( ${#candidates} )) && _describe cloche candidates
}

_cloche "$@"
