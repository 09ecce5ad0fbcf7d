//! Groups that neighbors serve worse, and the same sample in two parts.

use super::{Figure, InspectConfig, LISTED, RowNote, Section, Tensor};
use infomax_eval::geometry::{Metric, Neighbors, nearest_neighbors};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Names of columns that say which part of a data set a row belongs to.
const SPLITS: [&str; 5] = ["split", "part", "subset", "fold", "partition"];
/// Values of a column that make it one of groups.
const GROUPS: std::ops::RangeInclusive<usize> = 2..=50;
/// Rows of a group from which on it is compared.
const MEMBERS: usize = 20;
/// Nearer than this share of the median distance to the nearest row is a near duplicate.
const NEAR: f64 = 0.1;

type Value<'a> = &'a dyn Fn(&[Option<String>], usize) -> Option<String>;
type Column = (String, Vec<Option<String>>);

/// What rows of the sample are called.
pub(super) struct Places<'a> {
    /// Their number among all rows.
    pub(super) row: &'a dyn Fn(usize) -> usize,
    /// The number in the file of one of all rows.
    pub(super) number: &'a dyn Fn(usize) -> usize,
    /// What all rows say of splits.
    pub(super) across: Option<&'a Across>,
}

impl Places<'_> {
    fn number(&self, row: usize) -> usize {
        (self.number)((self.row)(row))
    }
}

/// Equal rows of two splits, among all rows.
pub(super) struct Across {
    /// The column of the splits.
    name: String,
    /// Those of all rows that equal one of another split.
    equal: HashSet<usize>,
    /// All rows.
    n: usize,
    /// Rows to look at.
    pub(super) rows: Vec<RowNote>,
}

fn split_of(columns: &[Column]) -> Option<&Column> {
    columns.iter().find(|(name, _)| SPLITS.iter().any(|s| name.eq_ignore_ascii_case(s)))
}

/// Rows that equal a row of another split, among all rows; `equals` has the first row that equals each. `None` without a column of
/// splits.
pub(super) fn across_splits(
    columns: &[Column],
    equals: &[Option<usize>],
    number: &dyn Fn(usize) -> usize,
) -> Option<Across> {
    let (name, parts) = split_of(columns)?;
    let mut alike: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, first) in equals.iter().enumerate() {
        if let Some(first) = first {
            alike.entry(*first).or_insert_with(|| vec![*first]).push(row);
        }
    }
    let mut across = Across { name: name.clone(), equal: HashSet::new(), n: equals.len(), rows: Vec::new() };
    for (&first, members) in &alike {
        // Looked for once: of many equal rows a search for each would be quadratic.
        let Some(&second) = members.iter().find(|other| parts[**other] != parts[first]) else { continue };
        for &row in members {
            let other = if parts[row] == parts[first] { second } else { first };
            across.equal.insert(row);
            let part = |row: usize| parts[row].as_deref().unwrap_or("unknown");
            let detail = format!("equals row {}; {name}: {} and {}", number(other), part(row), part(other));
            across.rows.push(RowNote { row, source: None, why: "across-splits", detail });
        }
    }
    across.rows.sort_by_key(|note| note.row);
    across.rows.truncate(LISTED);
    Some(across)
}

/// `z` is a sample of the rows, whose class and values the functions know.
pub(super) fn groups(
    z: &Tensor,
    columns: &[Column],
    class: &dyn Fn(usize) -> Option<u32>,
    value: Value<'_>,
    places: &Places<'_>,
    cfg: &InspectConfig,
) -> (Section, Vec<RowNote>) {
    let mut section = Section::new("groups and splits");
    let n = z.dims().first().copied().unwrap_or(0);
    let k = cfg.neighbors.min(n.saturating_sub(1));
    let near = section.try_part("neighbors", nearest_neighbors(z, k, Metric::Euclidean));
    let values: Vec<(&str, Vec<Option<String>>)> = columns
        .iter()
        .map(|(name, column)| (name.as_str(), (0..n).map(|row| value(column, row)).collect()))
        .collect();
    let (nearly, rows) = match &near {
        Some(near) => near_duplicates(&mut section, near, &values, places),
        None => (None, Vec::new()),
    };
    if let Some(across) = places.across {
        splits(&mut section, across, nearly.as_ref(), n, places);
    }
    if let Some(near) = &near {
        worst_group(&mut section, near, &values, class);
    }
    (section, rows)
}

/// The figures of rows that are in two splits: `nearly` are those of the sample that are nearly equal.
fn splits(
    section: &mut Section,
    across: &Across,
    nearly: Option<&BTreeSet<usize>>,
    n: usize,
    places: &Places<'_>,
) {
    let (equal, all, name) = (across.equal.len(), across.n, &across.name);
    let nearly: HashSet<usize> = nearly.into_iter().flatten().map(|&row| (places.row)(row)).collect();
    let both = across.equal.union(&nearly).count();
    let warning = "what is tested was trained on: results on this split are too good";
    section.figures.push(
        Figure::plain(
            "duplicates_across_splits",
            both as f64,
            format!(
                "rows with an equal row of another `{name}`, of all {all} rows, or a nearly equal one, among the {n} rows that \
                 were compared; 0 is usual"
            ),
        )
        .warn_if(both > 0, warning),
    );
    section.figures.push(
        Figure::plain(
            "equal_across_splits",
            equal as f64,
            format!(
                "rows that equal a row of another `{name}` in every value, of all {all} rows; 0 is usual"
            ),
        )
        .warn_if(equal > 0, warning),
    );
}

/// Pairs of rows that are much nearer than rows are; with a column of splits also the rows that are near one of another.
fn near_duplicates(
    section: &mut Section,
    near: &Neighbors,
    values: &[(&str, Vec<Option<String>>)],
    places: &Places<'_>,
) -> (Option<BTreeSet<usize>>, Vec<RowNote>) {
    let mut nearest: Vec<f64> = (0..near.n).map(|row| near.distances_of(row)[0]).collect();
    nearest.sort_by(f64::total_cmp);
    let threshold = NEAR * nearest[near.n / 2];
    if threshold == 0.0 {
        section.skipped.push("near duplicates: more than half of the rows equal another one".into());
        return (None, Vec::new());
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
    let mut notes = Vec::new();
    let note = |row: usize, (other, distance): (usize, f64), more: String| RowNote {
        row,
        source: None,
        why: "near-duplicate",
        detail: format!("at {distance:.4} from row {}{more}", places.number(other)),
    };
    let split = values.iter().find(|(name, _)| SPLITS.iter().any(|s| name.eq_ignore_ascii_case(s)));
    let Some((name, parts)) = split else {
        let found =
            (0..near.n).filter_map(|row| close(row).next().map(|pair| note(row, pair, String::new())));
        return (None, found.take(LISTED).collect());
    };
    let mut across = BTreeSet::new();
    for row in 0..near.n {
        let other = close(row).find(|(other, _)| parts[*other] != parts[row]);
        let Some(pair) = other else { continue };
        across.insert(row);
        // Equal rows are listed as such.
        if pair.1 > 0.0 && notes.len() < LISTED {
            let part = |row: usize| parts[row].as_deref().unwrap_or("unknown");
            notes.push(note(row, pair, format!("; {name}: {} and {}", part(row), part(pair.0))));
        }
    }
    (Some(across), notes)
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
        let places = Places { row: &|row| row, number: &|row| row, across: None };
        let equals = super::super::health::health(&z, &|row| row).unwrap().equals;
        let across = across_splits(columns, &equals, &|row| row);
        let places = Places { across: across.as_ref(), ..places };
        let (section, rows) = groups(&z, columns, &class, &value, &places, &InspectConfig::default());
        (section, across.into_iter().flat_map(|across| across.rows).chain(rows).collect())
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
        assert_eq!(figure(&section, "equal_across_splits").value, 0.0);
        assert_eq!(found.iter().map(|n| n.row).collect::<Vec<_>>(), [10, 160]);
        assert!(found[0].detail.contains("row 160; Split: train and test"), "{}", found[0].detail);
    }

    #[test]
    fn equal_rows_of_two_splits_are_counted_among_all_rows_and_not_those_of_one() {
        let split: Vec<Option<String>> =
            (0..200).map(|i| Some(if i < 150 { "train" } else { "test" }.into())).collect();
        let columns = [("split".to_owned(), split)];
        let mut rows = cloud(200);
        // Three alike, of which one is of the other split; two alike of one split.
        (rows[151], rows[5]) = (rows[3].clone(), rows[3].clone());
        rows[20] = rows[21].clone();
        let z = Tensor::new(rows.clone(), &Device::Cpu).unwrap();
        let equals = super::super::health::health(&z, &|row| row).unwrap().equals;
        let across = across_splits(&columns, &equals, &|row| row).unwrap();
        assert_eq!(across.rows.iter().map(|n| n.row).collect::<Vec<_>>(), [3, 5, 151]);
        assert!(across.rows[2].detail.contains("equals row 3; split: test and train"));
        // A sample that holds none of them does not hide them.
        let input =
            super::super::InspectInput { columns: columns.to_vec(), ..super::super::InspectInput::new(z) };
        let few = InspectConfig { max_rows: 100, ..InspectConfig::default() };
        let report = super::super::inspect(&input, &few).unwrap();
        assert_eq!(report.value("equal_across_splits"), Some(3.0));
        assert!(report.value("duplicates_across_splits").unwrap() >= 3.0);
        assert!(across_splits(&[], &equals, &|row| row).is_none());
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
