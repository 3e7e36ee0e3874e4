//! Dispatch.
use std::path::Path;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if args.get(1).map(String::as_str) == Some("supervise") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(orchestrator_boss::supervisor::supervise(Path::new(&args[2])));
        if let Err(error) = result {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
