//! Groups that neighbors serve worse, and the same sample in two parts.

use super::{Figure, InspectConfig, LISTED, RowNote, Section, Tensor};
use infomax_eval::geometry::{Metric, Neighbors, nearest_neighbors};
use std::collections::BTreeMap;

/// Names of columns that say which part of a data set a row belongs to.
const SPLITS: [&str; 5] = ["split", "part", "subset", "fold", "partition"];
/// Values of a column that make it one of groups.
const GROUPS: std::ops::RangeInclusive<usize> = 2..=50;
/// Rows of a group from which on it is compared.
const MEMBERS: usize = 20;
/// Nearer than this share of the median distance to the nearest row is a near duplicate.
const NEAR: f64 = 0.1;

type Value<'a> = &'a dyn Fn(&[Option<String>], usize) -> Option<String>;

/// `z` is a sample of the rows, whose class, values and numbers the functions know.
pub(super) fn groups(
    z: &Tensor,
    columns: &[(String, Vec<Option<String>>)],
    class: &dyn Fn(usize) -> Option<u32>,
    value: Value<'_>,
    number: &dyn Fn(usize) -> usize,
    cfg: &InspectConfig,
) -> (Section, Vec<RowNote>) {
    let mut section = Section::new("groups and splits");
    let n = z.dims().first().copied().unwrap_or(0);
    let k = cfg.neighbors.min(n.saturating_sub(1));
    let Some(near) = section.try_part("neighbors", nearest_neighbors(z, k, Metric::Euclidean)) else {
        return (section, Vec::new());
    };
    let values: Vec<(&str, Vec<Option<String>>)> = columns
        .iter()
        .map(|(name, column)| (name.as_str(), (0..n).map(|row| value(column, row)).collect()))
        .collect();
    let rows = near_duplicates(&mut section, &near, &values, number);
    worst_group(&mut section, &near, &values, class);
    (section, rows)
}

/// Pairs of rows that are much nearer than rows are, also those of two parts.
fn near_duplicates(
    section: &mut Section,
    near: &Neighbors,
    values: &[(&str, Vec<Option<String>>)],
    number: &dyn Fn(usize) -> usize,
) -> Vec<RowNote> {
    let mut nearest: Vec<f64> = (0..near.n).map(|row| near.distances_of(row)[0]).collect();
    nearest.sort_by(f64::total_cmp);
    let threshold = NEAR * nearest[near.n / 2];
    if threshold == 0.0 {
        section.skipped.push("near duplicates: more than half of the rows equal another one".into());
        return Vec::new();
    }
    let close = |row: usize| {
        let found = near.of(row).iter().zip(near.distances_of(row)).take_while(move |(_, d)| **d < threshold);
        found.map(|(other, d)| (*other as usize, *d))
    };
    let count = (0..near.n).filter(|row| close(*row).next().is_some()).count();
    section.figures.push(
        Figure::plain(
            "near_duplicates",
            count as f64,
            "rows whose nearest row is nearer than a tenth of the median distance to the nearest; 0 is usual",
        )
        .warn_if(count > 0, "the same sample twice, or nearly: look at them before you split"),
    );
    let split = values.iter().find(|(name, _)| SPLITS.iter().any(|s| name.eq_ignore_ascii_case(s)));
    let mut notes = Vec::new();
    let note = |row: usize, (other, distance): (usize, f64), more: String| RowNote {
        row,
        source: None,
        why: "near-duplicate",
        detail: format!("at {distance:.4} from row {}{more}", number(other)),
    };
    let Some((name, parts)) = split else {
        let found =
            (0..near.n).filter_map(|row| close(row).next().map(|pair| note(row, pair, String::new())));
        return found.take(LISTED).collect();
    };
    let mut across = 0;
    for row in 0..near.n {
        let other = close(row).find(|(other, _)| parts[*other] != parts[row]);
        let Some(pair) = other else { continue };
        across += 1;
        if notes.len() < LISTED {
            let part = |row: usize| parts[row].as_deref().unwrap_or("unknown");
            notes.push(note(row, pair, format!("; {name}: {} and {}", part(row), part(pair.0))));
        }
    }
    section.figures.push(
        Figure::plain(
            "duplicates_across_splits",
            across as f64,
            format!(
                "rows with an equal or nearly equal row of another `{name}`, among the {} rows that were compared; 0 is usual",
                near.n
            ),
        )
        .warn_if(across > 0, "what is tested was trained on: results on this split are too good"),
    );
    notes
}

/// The group whose rows agree least with their neighbors about the class.
fn worst_group(
    section: &mut Section,
    near: &Neighbors,
    values: &[(&str, Vec<Option<String>>)],
    class: &dyn Fn(usize) -> Option<u32>,
) {
    // Whether the most frequent class among the neighbors of a row is its own.
    let right: Vec<Option<bool>> = (0..near.n)
        .map(|row| {
            let own = class(row)?;
            let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
            near.of(row)
                .iter()
                .filter_map(|other| class(*other as usize))
                .for_each(|c| *votes.entry(c).or_default() += 1);
            let most = votes.values().max()?;
            // Of equal votes the own class wins or loses with the others: by its share.
            let first = votes.iter().find(|(_, count)| *count == most)?;
            Some(*first.0 == own)
        })
        .collect();
    let known = right.iter().flatten().count();
    if known == 0 {
        section.skipped.push(
            "groups: they are compared by how often neighbors have the own label; there are no labels".into(),
        );
        return;
    }
    let all = right.iter().flatten().filter(|r| **r).count() as f64 / known as f64;
    let mut worst: Option<(f64, String, usize, f64)> = None;
    for (name, column) in values {
        let mut groups: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (row, right) in right.iter().enumerate() {
            if let (Some(value), Some(right)) = (column[row].as_deref(), right) {
                let entry = groups.entry(value).or_default();
                entry.0 += 1;
                entry.1 += usize::from(*right);
            }
        }
        if !GROUPS.contains(&groups.len()) {
            continue;
        }
        let mut listed = Vec::new();
        for (value, (members, right)) in groups.into_iter().filter(|(_, (members, _))| *members >= MEMBERS) {
            let share = right as f64 / members as f64;
            // How far below all rows, in standard errors of a share of so many.
            let error = (all * (1.0 - all) / members as f64).sqrt().max(1e-12);
            let far = (share - all) / error;
            listed.push((share, format!("{value} {share:.3} of {members}")));
            if worst.as_ref().is_none_or(|w| far < w.0) {
                worst = Some((far, format!("`{name}` = {value}"), members, share));
            }
        }
        listed.sort_by(|a, b| a.0.total_cmp(&b.0));
        let shown: Vec<String> = listed.iter().take(5).map(|(_, text)| text.clone()).collect();
        if !shown.is_empty() {
            section.notes.push(format!(
                "`{name}`, the lowest shares of rows whose neighbors have their label: {}",
                shown.join(", ")
            ));
        }
    }
    let Some((far, group, members, share)) = worst else {
        section.skipped.push(format!(
            "groups: no column has {} to {} values, of which one has {MEMBERS} labeled rows",
            GROUPS.start(),
            GROUPS.end()
        ));
        return;
    };
    section.figures.push(
        Figure::plain(
            "worst_group",
            share,
            format!(
                "the share of rows whose {} neighbors have their label most often, in the group {group} ({members} rows); \
                 {all:.3} of all rows",
                near.k
            ),
        )
        .warn_if(far < -3.0, "more than three standard errors below all rows: this group is served worse"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use infomax_core::Key;

    fn cloud(n: usize) -> Vec<Vec<f64>> {
        Key::new(5).normal(0.0, 1.0, (n, 6), DType::F64, &Device::Cpu).unwrap().to_vec2().unwrap()
    }

    fn run(
        rows: Vec<Vec<f64>>,
        columns: &[(String, Vec<Option<String>>)],
        labels: &[u32],
    ) -> (Section, Vec<RowNote>) {
        let z = Tensor::new(rows, &Device::Cpu).unwrap();
        let class = |row: usize| labels.get(row).copied();
        let value = |column: &[Option<String>], row: usize| column[row].clone();
        groups(&z, columns, &class, &value, &|row| row, &InspectConfig::default())
    }

    fn figure<'a>(section: &'a Section, key: &str) -> &'a Figure {
        section.figures.iter().find(|f| f.key == key).unwrap()
    }

    #[test]
    fn near_duplicates_of_two_splits_are_found_and_none_in_a_cloud() {
        let split: Vec<Option<String>> =
            (0..200).map(|i| Some(if i < 150 { "train" } else { "test" }.into())).collect();
        let columns = [("Split".to_owned(), split)];
        let (section, rows) = run(cloud(200), &columns, &[]);
        assert_eq!(figure(&section, "near_duplicates").value, 0.0);
        assert_eq!(figure(&section, "duplicates_across_splits").value, 0.0);
        assert!(rows.is_empty() && section.skipped[0].contains("there are no labels"));
        let mut rows = cloud(200);
        rows[160] = rows[10].iter().map(|v| v + 1e-3).collect();
        rows[20] = rows[21].clone();
        let (section, found) = run(rows, &columns, &[]);
        assert_eq!(figure(&section, "near_duplicates").value, 4.0);
        assert_eq!(figure(&section, "duplicates_across_splits").value, 2.0);
        assert_eq!(found.iter().map(|n| n.row).collect::<Vec<_>>(), [10, 160]);
        assert!(found[0].detail.contains("row 160; Split: train and test"), "{}", found[0].detail);
    }

    #[test]
    fn the_group_that_is_served_worse_is_named_and_no_other() {
        let n = 400;
        let labels: Vec<u32> = (0..n as u32).map(|i| i % 2).collect();
        let site: Vec<Option<String>> = (0..n).map(|i| Some(format!("site {}", i / 2 % 4))).collect();
        let columns = [("site".to_owned(), site)];
        let apart = |blind: bool| {
            let mut rows = cloud(n);
            for (i, row) in rows.iter_mut().enumerate() {
                if !(blind && i / 2 % 4 == 3) {
                    row[0] += if i.is_multiple_of(2) { 4.0 } else { -4.0 };
                }
            }
            run(rows, &columns, &labels).0
        };
        let fair = apart(false);
        assert!(figure(&fair, "worst_group").warning.is_none(), "{fair:?}");
        let unfair = apart(true);
        let worst = figure(&unfair, "worst_group");
        assert!(worst.warning.is_some() && worst.meaning.contains("`site` = site 3"), "{worst:?}");
        assert!(unfair.notes[0].contains("site 3"));
    }
}
