//! What objectives there are.

use crate::{Status, print};
use anyhow::Result;

/// Prints every named objective with its composition, conventions and source.
pub(crate) fn list(json: bool) -> Result<Status> {
    let names = infomax_losses::names();
    if json {
        let rows: Vec<_> = names
            .iter()
            .map(|n| {
                serde_json::json!({
                    "name": n.name, "composition": n.composition, "conventions": n.conventions, "source": n.source
                })
            })
            .collect();
        print(&serde_json::to_string_pretty(&rows)?)?;
    } else {
        for named in names {
            let lines = [
                named.name.to_owned(),
                format!("    {}", named.composition),
                format!("    conventions: {}; {}", named.conventions.join(", "), named.source),
            ];
            print(&lines.join("\n"))?;
        }
        let terms = [
            vec!["invariance".to_owned(), infomax_losses::Invariance::KINDS.join(", ")],
            vec!["entropy".to_owned(), infomax_losses::EntropyConfig::KINDS.join(", ")],
        ];
        print("\nAny invariance goes with any entropy:")?;
        for row in terms {
            print(&format!("    {}: {}", row[0], row[1]))?;
        }
    }
    Ok(Status::Done)
}
