//! A Python package that needs no registry.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Writes a wheel with one module, as `pip wheel` would.
pub fn make_wheel(folder: &Path) {
    fs::create_dir(folder).unwrap();
    let script = "import zipfile, sys\n\
                  info = 'demo-1.0.dist-info/'\n\
                  files = {'demo.py': 'answer = 42\\n',\n\
                  info + 'METADATA': 'Metadata-Version: 2.1\\nName: demo\\nVersion: 1.0\\n',\n\
                  info + 'WHEEL': 'Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n',\n\
                  info + 'RECORD': ''}\n\
                  with zipfile.ZipFile(sys.argv[1], 'w') as wheel:\n    [wheel.writestr(*file) for file in files.items()]\n";
    let made = Command::new("python3").args(["-c", script]).arg(folder.join("demo-1.0-py3-none-any.whl")).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
}
