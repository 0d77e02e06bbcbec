//! The hidden verb alone, for this crate's tests: enters the jail of the spec in descriptor `ARG`.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "it tells its errors as the real program does")]
fn main() -> ExitCode {
    let Some(Ok(descriptor)) = std::env::args().nth(1).map(|number| number.parse()) else {
        eprintln!("usage: exec_jail DESCRIPTOR");
        return ExitCode::from(2);
    };
    match sluis_capture::jail::enter(descriptor) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("exec_jail: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
