# Completion of vethctl for fish: `vethctl complete` prints the candidates in the format that fish expects.

function __vethctl_complete
    set -l words (commandline -opc)
    set -l last (commandline -ct)
    for answer in ($words[1] complete -- $words[2..-1] "$last" 2>/dev/null)
        switch $answer
            case :files
                __fish_complete_path "$last"
            case :directories
                __fish_complete_directories "$last" ''
            case '*'
                echo $answer
        end
    end
end

complete -c vethctl -f -a '(__vethctl_complete)'
