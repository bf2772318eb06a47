"""`aisc completion bash|zsh`: a script for the shell. Words are fixed when it is made; nothing runs at each tab."""

from __future__ import annotations

from cli.help import VERBS
from configs.errors import UserError
from configs.frontdoor import EXPERIMENT, field_words, known_paths, preset_names
from configs.help import experiments
from configs.schema import SECTIONS, RunConfig
from configs.values import fields_of

SHELLS = ("bash", "zsh")

_SCRIPT = """\
_aisc() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} key=""
  COMPREPLY=()
  if [[ $word == "=" ]]; then key=$before; word=""
  elif [[ $before == "=" ]]; then key=${{COMP_WORDS[COMP_CWORD-2]}}
  elif [[ $word == *=* ]]; then key=${{word%%=*}}; word=${{word#*=}}
  fi
  if [[ -n $key ]]; then
    case $key in
{values}
      *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
    return
  fi
  if [[ $COMP_CWORD -eq 1 ]]; then COMPREPLY=($(compgen -W "{verbs}" -- "$word")); return; fi
  case ${{COMP_WORDS[1]}} in
{options}
  esac
  COMPREPLY+=($(compgen -f -X '!*.y*ml' -- "$word"))
  [[ ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace 2>/dev/null
}}
complete -F _aisc aisc
"""


def main(arguments: list[str]) -> int:
    """Prints the script; returns the exit code."""
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        raise UserError(f"aisc completion: expected one of {', '.join(SHELLS)}")
    if arguments[0] == "zsh":
        print("autoload -Uz bashcompinit && bashcompinit")
    print(script(), end="")
    return 0


def script() -> str:
    """Returns the bash script."""
    values = "\n".join(f'      {key}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")) ;;' for key, words in choices())
    keys = " ".join([f"{key}=" for key in [EXPERIMENT, *SECTIONS, *known_paths(RunConfig)]])
    options = []
    for name, verb in VERBS.items():
        words = " ".join(option.split()[0] for option in verb.options if option.startswith("--"))
        words = f"{words} {keys}" if verb.takes_keys else words
        options.append(f'    {name}) COMPREPLY=($(compgen -W "{words} --help" -- "$word")) ;;')
    return _SCRIPT.format(values=values, verbs=" ".join(VERBS), options="\n".join(options))


def choices() -> list[tuple[str, list[str]]]:
    """Returns (key, its legal words) for every key that has a fixed list, presets included."""
    found = [(EXPERIMENT, experiments())]
    found += [(section, [*names, *field_words(section)]) for section in SECTIONS if (names := preset_names(section))]
    config = RunConfig()
    for section in SECTIONS:
        for name, field in fields_of(type(getattr(config, section))).items():
            if field.metadata["choices"]:
                found.append((f"{section}.{name}", list(field.metadata["choices"])))
    return found
