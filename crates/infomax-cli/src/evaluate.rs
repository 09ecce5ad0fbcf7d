//! What a representation learned, as a table.

use crate::args::EvaluateArgs;
use crate::progress::Progress;
use crate::table::table;
use crate::{Status, print};
use anyhow::Result;
use infomax_run::{Evaluation, evaluate_run};

/// `infomax evaluate RUN`.
pub(crate) fn run(args: &EvaluateArgs) -> Result<Status> {
    let mut progress = Progress::new(args.output.quiet);
    let evaluation = evaluate_run(&args.run, &args.of.options(), &mut progress)?;
    if args.output.json {
        print(&serde_json::to_string_pretty(&evaluation)?)?;
    } else {
        print(&text(&evaluation))?;
    }
    Ok(Status::Done)
}

/// The evaluation as a table.
pub(crate) fn text(evaluation: &Evaluation) -> String {
    let percent = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{:.1} %", 100.0 * x));
    let rows: Vec<Vec<String>> = evaluation
        .rows
        .iter()
        .map(|row| {
            vec![
                row.what.clone(),
                row.dim.to_string(),
                percent(row.linear),
                percent(row.knn),
                format!("{:.1}", row.effective_rank),
                format!("{:.1}", row.participation_ratio),
            ]
        })
        .collect();
    let header = ["representation", "dim", "linear", "kNN", "effective rank", "participation"];
    let encoder = match &evaluation.trained_on {
        Some(on) => {
            format!("{} steps on {} images of {} without labels", evaluation.step, on.images, on.data)
        }
        None => format!("{} steps", evaluation.step),
    };
    let mut text = match (&evaluation.no_probe, evaluation.test_images) {
        (None, test) => format!(
            "Held-out accuracy on {test} images of {} in {} classes, by probes of {} images. The encoder: {}.\n",
            evaluation.data, evaluation.classes, evaluation.train_images, encoder
        ),
        (Some(why), _) => format!("No probe: {why}. The encoder: {encoder}.\n"),
    };
    text += &table(&header, &rows);
    let (train, test) = (evaluation.unlabeled_train, evaluation.unlabeled_test);
    if evaluation.no_probe.is_none() && train + test > 0 {
        text += &format!(
            "\nleft out of the probes: {train} training images without a label, {test} held-out images without one or of \
             a class that no training image has"
        );
    }
    if !evaluation.protocol.is_empty() {
        text += &format!("\n{}", evaluation.protocol);
    }
    text
}
