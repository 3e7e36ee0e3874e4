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

use jiff::Timestamp;
use serde_json::json;
use thiserror::Error;

use self::gather::{ReportData, ReportFilter};
use super::places::Places;
use crate::cli::error::CliError;
use crate::cli::hint;
use crate::cli::moment;
use crate::cli::output;
use crate::cli::workspace::Workspace;
use crate::mission::hint::{Hint, Hinted};

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  orchestrator-boss report
  orchestrator-boss report --since 2d --output week.html
  orchestrator-boss report --output - > run.html

Exit codes:
  0    success
  1    the report could not be written, or there is nothing to report
  2    wrong usage")]
pub(super) struct ReportArgs {
    /// Output file; `-` for stdout [default: orchestrator-report-DATE.html in the current directory]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Include only workers of this boss; the beginning of its id is enough
    #[arg(long, value_name = "ID")]
    boss: Option<String>,
    /// Include only workers created, finished or open since then: 2026-11-23, "2026-11-23 14:00", 3h, 2d
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    since: Option<Timestamp>,
    /// Print one JSON object about the report
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ReportArgs, places: &Places) -> ExitCode {
    output::run(async {
        let (inner, places) = (args.clone(), places.clone());
        let making = tokio::task::spawn_blocking(move || report(&inner, &places));
        let made = output::with_progress(|| "reading the workers' logs".to_owned(), making).await;
        match made.map_err(|error| CliError::Failed(error.to_string()))? {
            Err(CliError::Failed(why)) => {
                if args.json {
                    output::json_line(&json!({"status": "failed", "error": why}))?;
                }
                Err(CliError::Failed(format!("cannot write the report: {why}")))
            }
            made => made.map(|()| ExitCode::SUCCESS),
        }
    })
}

fn report(args: &ReportArgs, places: &Places) -> Result<(), CliError> {
    let workspace = Workspace::find(places)?;
    let nothing = || {
        format!(
            "no missions here yet ({} has no workers): start your agent in the repository, or name another place with \
             --state-dir",
            workspace.state_root.display()
        )
    };
    let mut observer = workspace.try_observer()?.ok_or_else(|| CliError::Failed(nothing()))?;
    let filter = ReportFilter { boss: args.boss.clone(), since: args.since };
    let place = workspace.repository.as_deref().unwrap_or(&workspace.directory);
    let data = ReportData::gather(&mut observer, &filter, place)?;
    let data = data.ok_or_else(|| {
        if args.boss.is_some() || args.since.is_some() {
            "no worker matches --boss and --since; omit them to see all".to_owned()
        } else {
            nothing()
        }
    });
    let data = data.map_err(CliError::Failed)?;
    let html = page::page(&data).into_string();
    if args.output.as_deref() == Some(Path::new("-")) {
        let mut stdout = io::stdout().lock();
        return stdout.write_all(html.as_bytes()).and_then(|()| stdout.flush()).map_err(CliError::from);
    }
    let default = || format!("orchestrator-report-{}.html", text::date(data.as_of)).into();
    let path = args.output.clone().unwrap_or_else(default);
    write(&path, &html).map_err(|error| CliError::Failed(hint::of(&error)))?;
    let workers = data.workers().count();
    if args.json {
        output::json_line(
            &json!({"status": "written", "path": path, "bytes": html.len(), "workers": workers, "left_out": data.left_out}),
        )
    } else {
        let size = text::bytes(html.len() as u64);
        output::line(&format!("{} ({}, {size})", path.display(), text::count(workers, "worker")))
    }
}

/// The reason why the report was not written.
#[derive(Debug, Error)]
enum WriteError {
    #[error("cannot overwrite {}: it is not a report", path.display())]
    NotAReport { path: PathBuf },
    #[error("cannot write {}: there is no folder {}", path.display(), folder.display())]
    NoFolder { path: PathBuf, folder: PathBuf },
    #[error("cannot write {}: {}", path.display(), plain(error))]
    Write { path: PathBuf, error: io::Error },
}

impl Hinted for WriteError {
    fn hints(&self) -> Vec<Hint> {
        vec![Hint::to("name another file with --output")]
    }
}

/// Writes the report atomically and readable for the user only, since it holds what agents printed. Overwrites only an
/// earlier report.
fn write(path: &Path, html: &str) -> Result<(), WriteError> {
    let cannot = |error| WriteError::Write { path: path.to_owned(), error };
    if fs::symlink_metadata(path).is_ok() && !is_report(path) {
        return Err(WriteError::NotAReport { path: path.to_owned() });
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(WriteError::NoFolder { path: path.to_owned(), folder: folder.to_owned() });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_are_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        write(&path, &format!("<meta content=\"{}\">one", page::GENERATOR)).unwrap();
        write(&path, &format!("<meta content=\"{}\">two", page::GENERATOR)).unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("two"));
        fs::write(&path, "mine").unwrap();
        assert!(write(&path, "x").unwrap_err().to_string().contains("is not a report"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let link = folder.path().join("link.html");
        std::os::unix::fs::symlink("elsewhere", &link).unwrap();
        assert!(write(&link, "x").is_err());
        let error = write(&folder.path().join("not/there.html"), "x").unwrap_err();
        assert!(hint::of(&error).contains("--output"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing half made is left");
    }
}
