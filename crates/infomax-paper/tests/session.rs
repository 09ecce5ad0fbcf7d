//! Experiments end to end at the smallest size: files, sharing of encoders, interruption, a seed that fails.

#![allow(clippy::unwrap_used)]

use infomax_paper::{EXPERIMENTS, Outcome, Preset, Settings, State, Verdict, run};
use infomax_run::RunConfig;
use std::path::Path;
use std::sync::atomic::Ordering;

fn settings(out: &Path) -> Settings {
    Settings { preset: Preset::Smoke, workers: 1, machine: "a test".into(), ..Settings::new(out) }
}

fn lines(settings: &Settings, names: &[&str]) -> (Outcome, Vec<String>) {
    let mut lines = Vec::new();
    let outcome = run(settings, names, &mut |line| lines.push(line.to_owned())).unwrap();
    (outcome, lines)
}

#[test]
fn what_needs_no_network_writes_all_of_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, _) = lines(&settings(dir.path()), &["em", "mixtures", "diagonal", "distances"]);
    let names: Vec<&str> = outcome.experiments.iter().map(|d| d.name.as_str()).collect();
    assert_eq!(names, ["mixtures", "diagonal", "em", "distances"], "the order of the table");
    for done in &outcome.experiments {
        assert_eq!((done.state, &done.error), (State::Done, &None), "{}", done.name);
        assert!(done.finding.judgments.iter().all(|j| j.effect.is_some()), "{}", done.name);
        let folder = dir.path().join(&done.name);
        for name in done.finding.tables.iter().map(|t| format!("{}.csv", t.name)) {
            let text = std::fs::read_to_string(folder.join(name)).unwrap();
            assert!(text.lines().count() > 1);
        }
        for name in done.finding.plots.iter().map(|p| format!("{}.svg", p.name)) {
            assert!(std::fs::read_to_string(folder.join(name)).unwrap().contains("<svg"));
        }
        let text = std::fs::read(folder.join("finding.json")).unwrap();
        assert_eq!(&serde_json::from_slice::<infomax_paper::Done>(&text).unwrap(), done);
    }
    // Those three hold in mathematics, and at this size, too.
    let verdict = |name: &str| outcome.experiments.iter().find(|d| d.name == name).unwrap().verdict;
    assert_eq!(verdict("diagonal"), Verdict::Supported);
    let held = &outcome.experiments[0].finding.judgments[0];
    assert_eq!(held.effect, Some(1.0), "{held:?}");
    assert!(std::fs::read_to_string(dir.path().join("em/em.svg")).unwrap().contains("<animate"));
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("Verdicts") && page.contains("a test") && !page.contains("<script"));

    // The same again, and one more experiment's name alone: the others stay in the report.
    let again = Settings { resume: true, ..settings(dir.path()) };
    let (outcome, said) = lines(&again, &["em"]);
    assert!(said.iter().any(|l| l.contains("there already")) && outcome.experiments.len() == 1);
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("mixtures") && page.contains("diagonal"));
}

/// An array of images; `shift` makes others.
fn array(path: &Path, shift: u32) {
    // Version 1 of the format: 70 images of 16 x 16 pixels.
    let mut header = String::from("{'descr': '|u1', 'fortran_order': False, 'shape': (70, 16, 16, 3), }");
    header += &" ".repeat(117 - header.len());
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend((0..70 * 16 * 16 * 3u32).map(|i| ((i + shift).wrapping_mul(2_654_435_761) >> 24) as u8));
    std::fs::write(path, bytes).unwrap();
}

/// Fewer images than the preset asks for: all are taken, and that is said.
#[test]
fn a_small_data_set_is_taken_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.npy");
    array(&path, 0);
    let settings = Settings { data: Some(path), ..settings(dir.path()) };
    let (outcome, said) = lines(&settings, &["distances"]);
    assert_eq!(
        (outcome.experiments[0].state, &outcome.experiments[0].error),
        (State::Done, &None),
        "{said:?}"
    );
    assert!(said.iter().any(|line| line.contains("70 training images are there")), "{said:?}");
}

/// One of eight encoders cannot be trained.
fn broken(config: &mut RunConfig) {
    if config.train.run.seed == 1 && config.objective.name == "simclr" {
        config.optim.schedule.lr = 1e30;
    }
}

#[test]
fn an_interrupted_session_goes_on_and_a_broken_seed_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let first = Settings { adjust: broken, ..settings(dir.path()) };
    let (stop, mut said) = (first.stop.clone(), Vec::new());
    let outcome = run(&first, &["normality"], &mut |line| {
        if line.contains("training simclr seed 0") {
            stop.store(true, Ordering::SeqCst);
        }
        said.push(line.to_owned());
    });
    let outcome = outcome.unwrap();
    assert!(outcome.interrupted && outcome.missing == ["normality"], "{said:?}");
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("interrupted") && page.contains("normality"));

    let second = Settings { resume: true, adjust: broken, ..settings(dir.path()) };
    let (outcome, said) = lines(&second, &["normality"]);
    let trained = |name: &str| said.iter().any(|l| l.contains(&format!("training {name}:")));
    assert!(!trained("vicreg seed 0"), "kept from the first session: {said:?}");
    assert!(trained("simclr seed 0") && trained("barlow-twins seed 0"), "{said:?}");
    let done = &outcome.experiments[0];
    assert_eq!(done.state, State::Done, "{:?}", done.error);
    assert_eq!(done.finding.missing.len(), 1, "{:?}", done.finding.missing);
    assert!(done.finding.missing[0].contains("simclr seed 1"), "{:?}", done.finding.missing);
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("simclr seed 1"));
}

#[test]
fn experiments_share_their_encoders() {
    let dir = tempfile::tempdir().unwrap();
    let one = Settings { seeds: Some(1), ..settings(dir.path()) };
    let (outcome, said) = lines(&one, &["table", "entropy", "bound", "account", "transfer"]);
    assert_eq!(outcome.experiments.len(), 5);
    for done in &outcome.experiments {
        assert_eq!(done.state, State::Done, "{}: {:?}", done.name, done.error);
        assert!(done.finding.missing.is_empty(), "{}: {:?}", done.name, done.finding.missing);
        assert!(!done.finding.configurations.is_empty(), "{}", done.name);
    }
    let trainings = said.iter().filter(|l| l.contains("  training ")).count();
    assert_eq!(trainings, 12, "{said:?}");
    // One seed decides nothing about means over seeds.
    let table = &outcome.experiments[0];
    assert_eq!((table.name.as_str(), table.verdict), ("table", Verdict::Undecided));
}

/// A file in the place of a folder refuses what a full disk refuses.
#[test]
fn what_cannot_be_written_is_said_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("diagonal"), "in the way").unwrap();
    let (outcome, said) = lines(&settings(dir.path()), &["diagonal", "em", "distances"]);
    assert_eq!(outcome.experiments.len(), 3, "{said:?}");
    assert!(outcome.unwritten.len() == 1 && outcome.unwritten[0].starts_with("diagonal: "), "{outcome:?}");
    assert!(said.iter().any(|line| line.contains("warning") && line.contains("diagonal")), "{said:?}");
    assert!(
        dir.path().join("em/finding.json").exists() && dir.path().join("distances/finding.json").exists()
    );
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("not written") && page.contains("off-diagonal"), "its numbers are on the page");

    // Once there is room, only what is not there is computed.
    std::fs::remove_file(dir.path().join("diagonal")).unwrap();
    let again = Settings { resume: true, ..settings(dir.path()) };
    let (outcome, said) = lines(&again, &["diagonal", "em", "distances"]);
    assert!(outcome.unwritten.is_empty(), "{outcome:?}");
    assert_eq!(said.iter().filter(|line| line.contains("there already")).count(), 2, "{said:?}");
    assert!(!std::fs::read_to_string(dir.path().join("report.html")).unwrap().contains("not written"));

    // The report itself.
    std::fs::remove_file(dir.path().join("report.html")).unwrap();
    std::fs::create_dir(dir.path().join("report.html")).unwrap();
    let (outcome, _) = lines(&again, &["em"]);
    assert!(outcome.unwritten.len() == 1 && outcome.unwritten[0].contains("report.html"), "{outcome:?}");
}

/// A changed estimator: the finding that is there is of an older revision.
#[test]
fn a_finding_of_another_revision_is_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    lines(&settings(dir.path()), &["em", "diagonal"]);
    let path = dir.path().join("em/finding.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"revision\": 1"));
    std::fs::write(&path, text.replace("\"revision\": 1", "\"revision\": 0")).unwrap();
    let again = Settings { resume: true, ..settings(dir.path()) };
    let (_, said) = lines(&again, &["em", "diagonal"]);
    assert!(said.iter().any(|l| l.starts_with("em: ") && l.contains("revision 0, now 1")), "{said:?}");
    assert!(said.iter().any(|l| l.starts_with("diagonal: there already")), "{said:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"revision\": 1"), "the new finding is in its place");
}

/// Images are known by what they are: others at the same place are others, the same at another place are the same.
#[test]
fn other_images_at_the_same_place_are_seen() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (dir.path().join("here.npy"), dir.path().join("there.npy"));
    array(&here, 0);
    array(&there, 0);
    let out = dir.path().join("out");
    let at = |data: &Path| Settings { data: Some(data.to_owned()), resume: true, ..settings(&out) };
    lines(&at(&here), &["distances"]);
    let (_, said) = lines(&at(&there), &["distances"]);
    assert!(said.iter().any(|l| l.starts_with("distances: there already")), "{said:?}");
    array(&here, 500);
    let (_, said) = lines(&at(&here), &["distances"]);
    assert!(said.iter().any(|l| l.contains("is of other images")), "{said:?}");
}

/// Calls into one folder add to the report; one that fails takes nothing away, and two at once are refused.
#[test]
fn earlier_findings_stay() {
    let dir = tempfile::tempdir().unwrap();
    lines(&settings(dir.path()), &["em", "distances"]);
    let page = || std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    let finding = || std::fs::read_to_string(dir.path().join("distances/finding.json")).unwrap();
    let (before, first) = (page(), finding());
    let nowhere = Settings { data: Some(dir.path().join("nowhere")), ..settings(dir.path()) };
    assert!(run(&nowhere, &["distances"], &mut |_| {}).is_err());
    assert_eq!((page(), finding()), (before, first));
    lines(&settings(dir.path()), &["diagonal"]);
    for name in ["em", "distances", "diagonal"] {
        assert!(page().contains(&format!(">{name}<")), "{name} is not on the page");
    }
    let mut second = None;
    run(&settings(dir.path()), &["em"], &mut |_| {
        second
            .get_or_insert_with(|| run(&settings(dir.path()), &["em"], &mut |_| {}).unwrap_err().to_string());
    })
    .unwrap();
    assert!(second.unwrap().contains("in use by another process"));
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused =
        |settings: &Settings, name: &str| run(settings, &[name], &mut |_| {}).unwrap_err().to_string();
    let names = refused(&settings(dir.path()), "nothing");
    assert!(EXPERIMENTS.iter().all(|e| names.contains(e.name)), "{names}");
    let none = Settings { seeds: Some(0), ..settings(dir.path()) };
    assert!(refused(&none, "em").contains("0 seeds"));
}
