# Completion of vethctl for bash: passes the candidates that `vethctl complete` prints to bash, in its own format.

_vethctl() {
  local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words last typed answer reply LC_CTYPE
  # Not COMP_WORDS, which are split at ':', '@' and '=' as well.
  read -ra words <<<"$line"
  [[ $line != *[[:space:]] ]] || words+=("")
  last=${words[-1]}
  # The part of the word that bash replaces: the text after its last separator, and the separator too if that is '@'
  # (rl_special_prefixes in readline).
  typed=${last##*["$COMP_WORDBREAKS"]}
  [[ $COMP_WORDBREAKS != *@* || $last != *@"$typed" ]] || typed=@$typed
  COMPREPLY=()
  while IFS= read -r answer; do
    case $answer in
      :files | :directories)
        compopt -o filenames
        while IFS= read -r reply; do COMPREPLY+=("$reply"); done < <(
          if [[ $answer == :files ]]; then compgen -f -- "$typed"; else compgen -d -- "$typed"; fi
        )
        ;;
      *)
        reply=${answer%%$'\t'*}
        COMPREPLY+=("${reply#"${last%"$typed"}"}")
        ;;
    esac
  done < <("${words[0]}" complete -- "${words[@]:1}" 2>/dev/null)
  # The word continues, as after dir: and veth1@.
  [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[:@=/] ]] || compopt -o nospace
}

complete -F _vethctl vethctl
