//! `infomax mi --given`: what two arrays tell of each other beyond what a third one tells of both.

use super::{headline, range};
use crate::{Status, print};
use anyhow::{Result, bail};
use infomax_run::infomax_eval::information::{
    CONDITIONAL, MutualConfig, MutualEstimator, MutualReport, Variable, conditional_report,
};
use std::f64::consts::LN_2;
use std::fmt::Write as _;

/// The estimators of `I(X; Y | Z)` that are asked for; none for all.
pub(super) fn estimators(names: &[String]) -> Result<Vec<MutualEstimator>> {
    let wanted = super::estimators(names)?;
    if let Some(other) = wanted.iter().find(|e| !CONDITIONAL.contains(e)) {
        bail!(
            "--estimator {} has no conditional form; with --given there are {}",
            other.name(),
            CONDITIONAL.map(MutualEstimator::name).join(", ")
        );
    }
    Ok(wanted)
}

/// `I(X; Y | Z)` by neighbors and by correlations.
pub(super) fn conditional(
    variables: [&Variable; 3],
    cfg: &MutualConfig,
    json: bool,
    left_out: &serde_json::Value,
) -> Result<Status> {
    let [Variable::Continuous(x), Variable::Continuous(y), Variable::Continuous(z)] = variables else {
        bail!(
            "--given: all three are columns of numbers; take classes for numbers by --x-is continuous, --y-is continuous"
        );
    };
    let report = conditional_report(x, y, z, cfg)?;
    if report.estimates.iter().all(|e| e.estimate.is_none()) {
        bail!("I(X; Y | Z): {}", report.reason);
    }
    if json {
        print(&serde_json::to_string_pretty(&to_json(&report, left_out)?)?)?;
    } else {
        print(&text(&report, cfg))?;
    }
    Ok(Status::Done)
}

fn key(estimator: MutualEstimator) -> &'static str {
    if estimator == MutualEstimator::Ksg1 { "neighbors" } else { "normal_copula" }
}

fn to_json(report: &MutualReport, left_out: &serde_json::Value) -> Result<serde_json::Value> {
    let first = report.recommended.map(|at| key(report.estimates[at].estimator));
    let mut json = serde_json::json!({
        "unit": "nats", "rows": report.n, "dims": report.dims, "first": first, "reason": report.reason,
        "left_out": left_out, "p_values": {}, "refused": {},
    });
    for one in &report.estimates {
        let key = key(one.estimator);
        json["tested_rows"] = one.tested_rows.into();
        match &one.estimate {
            Some(estimate) => {
                json[key] = serde_json::to_value(estimate)?;
                json["p_values"][key] = serde_json::to_value(one.p_value)?;
            }
            None => json["refused"][key] = one.refused.clone().into(),
        }
    }
    Ok(json)
}

fn text(report: &MutualReport, cfg: &MutualConfig) -> String {
    let mut out = String::new();
    let first = report.estimates.first();
    let estimate = first.and_then(|f| f.estimate.as_ref());
    if let Some(doubt) = estimate.and_then(|e| e.doubts.iter().find(|d| d.code == "determined")) {
        let _ = writeln!(out, "I(X; Y | Z) is infinite, or cannot be measured: {doubt}\n{} rows\n", report.n);
    } else if let (Some(first), Some(estimate), true) = (first, estimate, report.recommended.is_some()) {
        let _ = writeln!(
            out,
            "{}\n{} rows; chosen because {}\n",
            headline("I(X; Y | Z)", first.estimator, estimate, cfg),
            report.n,
            report.reason
        );
    } else {
        let _ = writeln!(out, "I(X; Y | Z) is not known: {}\n{} rows\n", report.reason, report.n);
    }
    for one in &report.estimates {
        let name = one.estimator.name();
        let about = match one.estimator {
            MutualEstimator::Ksg1 => "Frenzel and Pompe, normal scores",
            _ => "partial correlations of normal scores",
        };
        let Some(e) = &one.estimate else {
            let _ = writeln!(out, "{name:<14} not computed: {}", one.refused.as_deref().unwrap_or_default());
            continue;
        };
        let p = one.p_value.map_or_else(String::new, |p| format!("p {p:.3}   "));
        let (nats, bits) = (e.value, e.value / LN_2);
        let _ = writeln!(out, "{name:<14} {nats:.4} nats {bits:.4} bits {}   {p}{about}", range(e));
        for doubt in &e.doubts {
            let _ = writeln!(out, "    doubt ({}): {doubt}", doubt.code);
        }
    }
    if let Some(tested) = first.filter(|_| cfg.permutations > 0).map(|f| f.tested_rows) {
        let _ = writeln!(
            out,
            "p: independence given Z, by {} local permutations (X among rows of near Z) of {tested} rows",
            cfg.permutations
        );
    }
    out.trim_end().to_owned()
}
