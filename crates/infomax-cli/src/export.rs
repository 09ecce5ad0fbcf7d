//! `infomax export`: the encoder of a run, for other libraries.

use crate::args::ExportArgs;
use crate::embed::replace;
use crate::progress::Progress;
use crate::{Status, print};
use anyhow::{Context as _, Result, bail};
use infomax_run::infomax_models::Naming;
use infomax_run::{ExportOptions, export, export_onnx};

pub(crate) fn run(args: &ExportArgs) -> Result<Status> {
    let ending = args.out.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let onnx = ending == "onnx";
    if !onnx && ending != "safetensors" {
        bail!("--out {}: the name ends with .safetensors or .onnx", args.out.display());
    }
    let naming = match (&args.names, onnx) {
        (Some(names), false) => names.parse().context("--names")?,
        (None, true) => Naming::Own,
        (None, false) => {
            bail!("--names is missing: say whose names the parameters get, `torchvision`, `timm` or `own`")
        }
        (Some(_), true) => {
            bail!("--names goes with a .safetensors file: in an ONNX file the weights keep our names")
        }
    };
    crate::folder_of(&args.out)?;
    let mut progress = Progress::new(args.output.quiet);
    let options =
        ExportOptions { checkpoint: args.checkpoint.clone(), naming, head: args.head, teacher: args.teacher };
    let exported = match onnx {
        true => export_onnx(&args.run, &options, &mut progress)?,
        false => export(&args.run, &options, &mut progress)?,
    };
    replace(&args.out, &exported.bytes)?;
    exported.notes.iter().for_each(|note| progress.note(&format!("note: {note}")));
    let python = exported.python(&args.out);
    let card = &exported.card;
    if args.output.json {
        let json = serde_json::json!({
            "file": args.out, "names": args.names, "tensors": exported.tensors, "step": exported.step,
            "architecture": card.model.encoder.kind(), "feature_dim": card.feature_dim, "input": card.input,
            "mean": card.mean, "std": card.std, "notes": exported.notes, "python": python,
        });
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        let (channels, height, width) = card.input;
        progress.note(&format!(
            "{}: {} tensors{}, after {} steps; images {channels}x{height}x{width} in 0..1, less \
             {:?}, over {:?}",
            args.out.display(),
            exported.tensors,
            args.names.as_ref().map_or(String::new(), |names| format!(" under the names of {names}")),
            exported.step,
            card.mean,
            card.std
        ));
        if !python.is_empty() {
            print(&python)?;
        }
    }
    Ok(Status::Done)
}
