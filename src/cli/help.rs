//! Builds the top-level help, grouped by what users want to do, and the manual page. Both are made from the commands'
//! own definitions.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::CommandLine;
use super::error::CliError;
use super::output;

/// Groups of commands in the top-level help. The test below checks that every command is in one.
const GROUPS: [(&str, &[&str]); 3] = [
    ("Show", &["status", "logs", "diff", "path", "open", "wait", "report"]),
    ("Manage workers", &["message", "answer", "attach", "cancel", "retry", "integrate", "clean"]),
    ("Set up", &["demo", "setup", "config", "doctor", "serve", "completions", "man"]),
];

/// Returns everything that a user may type, with the commands of the top level in groups.
pub(super) fn command() -> Command {
    let command = CommandLine::command().max_term_width(80);
    let lists = GROUPS.iter().map(|(group, names)| {
        let of_group = names.iter().filter_map(|name| command.find_subcommand(name));
        let lines = of_group.map(|sub| {
            format!("  {:<12} {}\n", sub.get_name(), sub.get_about().map(ToString::to_string).unwrap_or_default())
        });
        format!("{group}:\n{}", lines.collect::<String>())
    });
    let lists = lists.collect::<Vec<_>>().join("\n");
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{lists}\nOptions:\n{{options}}{{after-help}}"
    ))
}

pub(super) fn man() -> ExitCode {
    match page() {
        Ok(page) => print(&page),
        Err(error) => output::end(Err(CliError::Failed(format!("cannot create the manual page: {error}")))),
    }
}

/// Renders one page with all commands, each a section below COMMANDS.
fn page() -> io::Result<Vec<u8>> {
    // The sections have the order of the groups.
    let command = CommandLine::command().disable_help_subcommand(true);
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for name in GROUPS.iter().flat_map(|(_, names)| *names) {
        let Some(sub) = command.find_subcommand(name) else { continue };
        section(&mut page, sub.clone())?;
    }
    Ok(page)
}

fn section(page: &mut Vec<u8>, sub: Command) -> io::Result<()> {
    let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
    writeln!(page, ".SS {}\n{}", roff_text(sub.get_name()), roff_text(&about))?;
    let sub = sub.clone().bin_name(format!("orchestrator-boss {}", sub.get_name())).disable_help_flag(true);
    let after = sub.get_after_help().map(ToString::to_string);
    let man = Man::new(sub);
    let mut parts = Vec::new();
    writeln!(parts, ".PP")?;
    man.render_synopsis_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    // The library renders them with section headings of their own.
    let parts = String::from_utf8_lossy(&parts).into_owned();
    parts.lines().filter(|line| !line.starts_with(".SH")).try_for_each(|line| writeln!(page, "{line}"))?;
    match after {
        Some(after) => writeln!(page, ".PP\n.nf\n{}\n.fi", roff_text(&after)),
        None => Ok(()),
    }
}

/// Escapes a text so that it holds no roff commands.
fn roff_text(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('-', "\\-");
    let lines = escaped.lines().map(|line| {
        let escape = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        format!("{escape}{line}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn print(bytes: &[u8]) -> ExitCode {
    let mut out = io::stdout().lock();
    let printed = out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::from);
    output::end(printed.map(|()| ExitCode::SUCCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown() -> Vec<Command> {
        let mut all = command().term_width(80);
        all.build();
        all.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help").cloned().collect()
    }

    #[test]
    fn help_fits_80_columns_and_groups_every_command() {
        let mut top = command().term_width(80);
        let whole = [top.render_help().to_string(), top.render_long_help().to_string()];
        for sub in shown() {
            let name = sub.get_name().to_owned();
            let grouped = GROUPS.iter().any(|(_, names)| names.contains(&name.as_str()));
            assert!(grouped, "{name} is in none of GROUPS");
            assert!(whole[0].contains(&format!("\n  {name} ")), "{name} in {}", whole[0]);
        }
        let subs = shown().into_iter().map(|sub| sub.term_width(80));
        let helps = subs.flat_map(|mut sub| [sub.render_help().to_string(), sub.render_long_help().to_string()]);
        for help in helps.chain(whole) {
            let long: Vec<&str> = help.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(long.is_empty(), "{long:#?}\nin\n{help}");
        }
    }

    #[test]
    fn every_command_documents_examples_and_exit_codes() {
        for sub in shown() {
            let name = sub.get_name().to_owned();
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            assert!(!about.is_empty() && about.len() <= 64, "about of {name}: {about:?}");
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("Exit codes:\n  0  "), "exit codes of {name}");
            let examples: Vec<&str> =
                after.lines().filter_map(|line| line.strip_prefix("  orchestrator-boss")).collect();
            assert!(!examples.is_empty(), "examples of {name}");
            for example in examples {
                let words = words(example);
                let parsed = CommandLine::command().try_get_matches_from(&words);
                assert!(parsed.is_ok(), "{words:?}: {}", parsed.unwrap_err());
            }
        }
    }

    /// Splits an example into words as a shell would, as far as the examples need it.
    fn words(example: &str) -> Vec<String> {
        let alone = example.split(['>', '<', '|', '&']).next().unwrap_or_default();
        let quoted = alone.split('"').enumerate();
        let words = quoted.flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        });
        ["orchestrator-boss".to_owned()].into_iter().chain(words).collect()
    }

    #[test]
    fn manual_page_has_every_command() {
        let page = String::from_utf8(page().unwrap()).unwrap();
        for sub in shown() {
            assert!(page.contains(&format!(".SS {}\n", roff_text(sub.get_name()))), "{}", sub.get_name());
        }
        assert!(page.contains("Exit codes:") && page.contains(".TH orchestrator-boss 1"), "{page}");
        assert_eq!(roff_text(".x\n'y \\ -z"), "\\&.x\n\\&'y \\\\ \\-z");
    }
}
