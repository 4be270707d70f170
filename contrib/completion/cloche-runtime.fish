# fish completion for cloche-runtime: the candidates come from its own help.

function __cloche_runtime_commands
    cloche-runtime --help 2>/dev/null | sed -n '/^COMMANDS:/,/^$/s/^ \{3\}\([a-z]*\) *\(.*\)/\1\t\2/p'
end

function __cloche_runtime_command
    set -l names (__cloche_runtime_commands | cut -f1)
    for word in (commandline -opc)[2..]
        contains -- $word $names; and echo $word; and return
    end
    return 1
end

function __cloche_runtime_options
    cloche-runtime (__cloche_runtime_command) --help 2>/dev/null | grep -oE -- '--[a-z][a-z0-9-]+' | sort -u
end

complete -c cloche-runtime -f
complete -c cloche-runtime -n 'not __cloche_runtime_command' -a '(__cloche_runtime_commands)'
complete -c cloche-runtime -n 'string match -q -- "-*" (commandline -ct)' -a '(__cloche_runtime_options)'
complete -c cloche-runtime -n 'test (commandline -opc)[-1] = mounts' -a 'add remove'
complete -c cloche-runtime -n '__cloche_runtime_command' -a '(cloche-runtime list -q 2>/dev/null)'
complete -c cloche-runtime -n 'string match -qr -- "^(-b|--bundle|--root|--log|--pid-file|--process)\$" (commandline -opc)[-1]' -F
