//! The end of all ranks when one of them fails.

use crate::{Ranks, Report};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// How long a rank that fails waits for the others to say why they end, too.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the work of this rank. If it fails or panics, the reason is reported with rank and host and given to the other
/// ranks, whose next operation ends with it, and the processes of all ranks end with the status 1: then this function
/// does not return.
///
/// A panic that unwound a rank alone would leave the others waiting for ever. A hook reports each panic of this process
/// with rank and host, and if unwinding itself hangs, ends the process after half a minute.
pub fn guarded<T, E: std::fmt::Display>(
    ranks: &Ranks,
    report: &Report,
    work: impl FnOnce() -> Result<T, E>,
) -> T {
    let (name, said, before) = (ranks.name(), report.clone(), std::panic::take_hook());
    let main = std::thread::current().id();
    std::panic::set_hook(Box::new(move |info| {
        said(&format!("{name}: {info}"));
        if std::thread::current().id() == main {
            // What ends the job below may hang; the launcher sees the end of this process in any case.
            let _ = std::thread::Builder::new().name("end".into()).spawn(|| {
                std::thread::sleep(3 * GRACE);
                std::process::abort();
            });
        }
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    std::panic::set_hook(before);
    let reason = match result {
        Ok(Ok(value)) => return value,
        Ok(Err(error)) => {
            let reason = error.to_string();
            // What an operation refuses names its rank already. Each rank may have a log of its own: it says why it ends, also
            // where another one began.
            let name = ranks.name();
            report(&if reason.starts_with(&name) { reason.clone() } else { format!("{name}: {reason}") });
            reason
        }
        Err(payload) => format!("it panicked: {}", text(&*payload)),
    };
    ranks.leave(&reason, GRACE);
    ranks.abort(1);
    std::process::exit(1)
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
