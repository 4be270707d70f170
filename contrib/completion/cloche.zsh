#compdef cloche
# zsh completion for cloche: the candidates come from the program's own tables.

_cloche() {
    local line word
    local -a candidates open

    for line in ${(f)"$(${words[1]} __complete -- ${words[2,CURRENT]} 2>/dev/null)"}; do
        if [[ $line == :files ]]; then
            _files
        else
            word=${line%%$'\t'*}
            # A colon ends the word in _describe's list.
            line="${word//:/\\:}${${(M)line%$'\t'*}:+:${line#*$'\t'}}"
            # The value of NAME= follows at once.
            if [[ $word == *= ]]; then
                open+=("$line")
            else
                candidates+=("$line")
            fi
        fi
    done
    (( ${#open} )) && _describe cloche open -S ''
    (( ${#candidates} )) && _describe cloche candidates
}

_cloche "$@"
