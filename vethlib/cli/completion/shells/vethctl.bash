# Completion of vethctl for bash: `vethctl complete` says what there is, here it gets into the form bash wants.

_vethctl() {
  local IFS=$' \t\n' line=${COMP_LINE:0:COMP_POINT} words last typed answer reply LC_CTYPE
  # Not COMP_WORDS, which are split at ':', '@' and '=' as well.
  read -ra words <<<"$line"
  [[ $line != *[[:space:]] ]] || words+=("")
  last=${words[-1]}
  # What bash is going to replace: what follows the last of its own separators; with it, if that is '@'
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
  # More is to follow, as after dir: and veth1@.
  [[ ${#COMPREPLY[@]} != 1 || ${COMPREPLY[0]} != *[:@=/] ]] || compopt -o nospace
}

complete -F _vethctl vethctl
