//! `completion`: the shell asks this program what could come next.

use clap::{Arg, Args, Command, ValueEnum};

use crate::client::{self, App};
use crate::commands::Cli;
use crate::context::Context;
use crate::error::Result;

/// Print the script that lets your shell complete commands, options and the names of your apps
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  $ eval \"$(platform completion bash)\"                     # in ~/.bashrc
  $ eval \"$(platform completion zsh)\"                      # in ~/.zshrc, after compinit
  $ platform completion fish > ~/.config/fish/completions/platform.fish")]
pub(crate) struct Completion {
    /// Your shell
    #[arg(required_unless_present = "line")]
    shell: Option<Shell>,
    /// Print what could come at the end of this line
    #[arg(long, hide = true)]
    line: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// readline breaks words at colons and replaces only what follows the last one.
const BASH: &str = r#"_platform() {
  local line=${COMP_LINE:0:COMP_POINT} word
  word=${line##* }
  mapfile -t COMPREPLY < <(platform completion --line "$line" 2>/dev/null)
  COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
}
complete -o default -F _platform platform"#;

const ZSH: &str = r#"_platform() {
  local -a found=("${(@f)$(platform completion --line "${words[1,CURRENT-1]} ${PREFIX}" 2>/dev/null)}")
  if [[ -n $found ]]; then compadd -- $found; else _files; fi
}
compdef _platform platform"#;

const FISH: &str =
    "complete -c platform -f -a '(platform completion --line (commandline -cp | string collect) 2>/dev/null)'";

impl Completion {
    pub(crate) fn run(self, cx: &Context) -> Result<()> {
        if let Some(line) = self.line {
            let mut root = Cli::described();
            root.build();
            return candidates(&root, &line, || apps(cx)).iter().try_for_each(|candidate| cx.out.line(candidate));
        }
        cx.out.line(match self.shell {
            Some(Shell::Zsh) => ZSH,
            Some(Shell::Fish) => FISH,
            _ => BASH,
        })
    }
}

/// None, if the platform cannot be asked: nobody waits for a message here.
fn apps(cx: &Context) -> Vec<String> {
    let list = || -> Result<Vec<App>> { client::typed(&cx.client()?.list(&["apps"])?) };
    list().unwrap_or_default().into_iter().map(|app| app.name).collect()
}

/// What could stand at the end of `line`, in place of the word that has begun there.
fn candidates(root: &Command, line: &str, apps: impl FnOnce() -> Vec<String>) -> Vec<String> {
    let mut words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let begun = if line.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or_default() };
    let chosen = words.iter().find_map(|word| root.find_subcommand(word));
    let command = chosen.unwrap_or(root);
    let option = words.last().and_then(|word| command.get_opts().find(|option| is_named(option, word)));
    let all = match (option, chosen) {
        (Some(option), _) if option.get_action().takes_values() => match option.get_id().as_str() {
            "app" | "confirm" => apps(),
            _ => values(option),
        },
        _ if begun.starts_with('-') => {
            let shown = command.get_arguments().filter(|option| !option.is_hide_set());
            shown.filter_map(|option| Some(format!("--{}", option.get_long()?))).collect()
        }
        (_, None) => {
            let shown = root.get_subcommands().filter(|command| !command.is_hide_set());
            shown.map(|command| command.get_name().to_owned()).collect()
        }
        (_, Some(command)) => command.get_positionals().flat_map(values).collect(),
    };
    all.into_iter().filter(|candidate| candidate.starts_with(begun)).collect()
}

fn is_named(option: &Arg, word: &str) -> bool {
    match word.strip_prefix("--") {
        Some(long) => option.get_long() == Some(long),
        None => {
            word.strip_prefix('-').is_some_and(|short| option.get_short().is_some_and(|it| short == it.to_string()))
        }
    }
}

fn values(argument: &Arg) -> Vec<String> {
    argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command as Program;

    use super::*;

    fn complete(line: &str) -> Vec<String> {
        let mut root = Cli::described();
        root.build();
        candidates(&root, line, || vec!["shop".to_owned(), "blog".to_owned()])
    }

    #[test]
    fn commands_options_values_and_apps_are_completed() {
        assert_eq!(complete("platform config:"), ["config:get", "config:set", "config:unset", "config:history"]);
        assert_eq!(complete("platform logs --ta"), ["--tail"]);
        assert_eq!(complete("platform logs --tail -a s"), ["shop"]);
        assert_eq!(complete("platform info --app "), ["shop", "blog"]);
        assert_eq!(complete("platform completion "), ["bash", "zsh", "fish"]);
        assert!(complete("platform ").contains(&"create".to_owned()));
        assert!(!complete("platform ").contains(&"role".to_owned()), "hidden from people");
    }

    #[test]
    fn bash_completes_words_with_colons() {
        // Stands for the program; bash asks it as it asks the real one.
        let program = "platform() { printf 'config:get\\nconfig:set\\n'; }";
        let press_tab = "COMP_LINE='platform config:'; COMP_POINT=${#COMP_LINE}; _platform; echo \"${COMPREPLY[*]}\"";
        let output = Program::new("bash").args(["-c", &format!("{program}\n{BASH}\n{press_tab}")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "get set\n", "{output:?}");
    }
}
