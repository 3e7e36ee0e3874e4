//! `report`: writes the missions and their results to one HTML file. Reads the state and changes nothing in it.
//!
//! `gather.rs` reads the data, `conversation.rs` reads a log. `page.rs`, `timeline.rs` and `worker.rs` write HTML, with
//! `style.css` as the style.

mod conversation;
mod gather;
mod page;
mod text;
mod timeline;
mod worker;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned, civil};
use serde_json::json;

use self::gather::{Story, Wanted};
use super::here::Here;
use super::out::{self, End};
use super::places::Places;
use super::visit;

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss report
  orchestrator-boss report --since 2d --output week.html
  orchestrator-boss report --output - > run.html

Exit codes:
  0    it was written
  1    it could not be, or there is nothing to report
  2    wrong usage")]
pub(super) struct ReportArgs {
    /// Where to write it; `-` for stdout [default: orchestrator-report-<date>.html in the current directory]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only the workers of this boss; the beginning of its id is enough
    #[arg(long, value_name = "ID")]
    boss: Option<String>,
    /// Only what was asked for, settled or still open since then: 2026-11-23, "2026-11-23 14:00", 3h, 2d
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    since: Option<Timestamp>,
    /// Print one JSON object about what was written
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReportArgs, places: &Places) -> ExitCode {
    out::run(async {
        let (inner, places) = (args.clone(), places.clone());
        let making = tokio::task::spawn_blocking(move || report(&inner, &places));
        let made = out::with_progress(|| "reading what the workers did".to_owned(), making).await;
        match made.map_err(|error| End::Failed(error.to_string()))? {
            Err(End::Failed(why)) => {
                if args.json {
                    out::json_line(&json!({"status": "failed", "error": why}))?;
                }
                Err(End::Failed(format!("no report: {why}")))
            }
            made => made.map(|()| ExitCode::SUCCESS),
        }
    })
}

fn report(args: &ReportArgs, places: &Places) -> Result<(), End> {
    let here = Here::find(places).map_err(End::Failed)?;
    let nothing = || {
        format!(
            "nothing was asked for here yet ({} has no workers): start your agent in the repository, or name another \
             place with --state-dir",
            here.state_root.display()
        )
    };
    let mut observer = here.observe().map_err(End::Failed)?.ok_or_else(|| End::Failed(nothing()))?;
    let wanted = Wanted { boss: args.boss.clone(), since: args.since };
    let place = here.repository.as_deref().unwrap_or(&here.directory);
    let story = Story::gather(&mut observer, &wanted, place).map_err(visit::refused)?;
    let story = story.ok_or_else(|| match args.boss.is_some() || args.since.is_some() {
        true => "no worker is of that boss and that time; leave out --boss or --since to see all".to_owned(),
        false => nothing(),
    });
    let story = story.map_err(End::Failed)?;
    let html = page::page(&story).into_string();
    if args.output.as_deref() == Some(Path::new("-")) {
        let mut stdout = io::stdout().lock();
        return stdout.write_all(html.as_bytes()).and_then(|()| stdout.flush()).map_err(out::closed);
    }
    let default = || format!("orchestrator-report-{}.html", text::date(story.as_of)).into();
    let path = args.output.clone().unwrap_or_else(default);
    write(&path, &html).map_err(End::Failed)?;
    let workers = story.workers().count();
    match args.json {
        true => out::json_line(
            &json!({"status": "written", "path": path, "bytes": html.len(), "workers": workers, "left_out": story.left_out}),
        ),
        false => {
            let size = text::bytes(html.len());
            out::line(&format!("{} ({}, {size})", path.display(), text::count(workers as u64, "worker")))
        }
    }
}

/// Writes the report atomically and readable for the user only, since it holds what agents printed. Overwrites only an
/// earlier report.
fn write(path: &Path, html: &str) -> Result<(), String> {
    let cannot = |error: io::Error| {
        format!("{} could not be written: {}; name another with --output", path.display(), plain(&error))
    };
    if fs::symlink_metadata(path).is_ok() && !is_report(path) {
        return Err(format!(
            "{} is there and is no report, so it was left alone: name another with --output",
            path.display()
        ));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(format!(
            "cannot write {}: there is no folder {}; name another with --output",
            path.display(),
            folder.display()
        ));
    }
    let mut file = tempfile::Builder::new().prefix(".report-").tempfile_in(folder).map_err(cannot)?;
    file.write_all(html.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(cannot)?;
    file.persist(path).map_err(|error| cannot(error.error))?;
    Ok(())
}

/// Returns the error without the name of our temporary file.
fn plain(error: &io::Error) -> String {
    match error.get_ref() {
        Some(_) => io::Error::from(error.kind()).to_string(),
        None => error.to_string(),
    }
}

fn is_report(path: &Path) -> bool {
    let is_file = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let mut head = Vec::new();
    let read = is_file.then(|| File::open(path).and_then(|file| file.take(1_000).read_to_end(&mut head)));
    matches!(read, Some(Ok(_))) && String::from_utf8_lossy(&head).contains(page::GENERATOR)
}

/// A day, a time of a day, a time with its offset, or how long ago.
fn moment(text: &str) -> Result<Timestamp, String> {
    let zone = TimeZone::system();
    let local = |at: civil::DateTime| at.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    let ago = |span: Span| Zoned::now().checked_sub(span).ok().map(|at| at.timestamp());
    let found = text.parse::<Timestamp>().ok();
    let found = found.or_else(|| local(text.parse::<civil::DateTime>().ok()?));
    let found = found.or_else(|| ago(text.parse::<Span>().ok()?.abs()));
    found.ok_or_else(|| "give a day (2026-11-23), a time (2026-11-23 14:00) or how long ago (3h, 2d)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_a_time_or_how_long_ago() {
        let day = moment("2026-11-23").unwrap();
        assert_eq!(moment("2026-11-23 14:00").unwrap().duration_since(day).as_secs(), 14 * 3600);
        assert_eq!(moment("2026-11-23T14:00:00Z").unwrap(), "2026-11-23T14:00:00Z".parse().unwrap());
        let ago = Timestamp::now().duration_since(moment("2h").unwrap()).as_secs();
        assert!((7_190..7_210).contains(&ago), "{ago}");
        let ago = Timestamp::now().duration_since(moment("3d").unwrap()).as_secs();
        assert!((250_000..270_000).contains(&ago), "{ago}");
        assert!(moment("yesterday").unwrap_err().contains("2026-11-23"));
    }

    #[test]
    fn only_a_report_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write(&path, &format!("<meta content=\"{}\">one", page::GENERATOR)).unwrap();
        write(&path, &format!("<meta content=\"{}\">two", page::GENERATOR)).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("two"));
        fs::write(&path, "mine").unwrap();
        assert!(write(&path, "x").unwrap_err().contains("is no report"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let link = folder.path().join("link.html");
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        assert!(write(&link, "x").is_err());
        assert!(write(&folder.path().join("not/there.html"), "x").unwrap_err().contains("--output"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half made is left");
    }
}
