//! `infomax data preview`: the sheet, its parameters, and the presets.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn infomax(dir: &Path, args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_infomax")).current_dir(dir).args(args).output().unwrap();
    assert!(
        output.status.success() || args.contains(&"--fails"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Photos with a gradient, so that flips and crops show.
fn photos(dir: &Path) {
    for (class, blue) in [("cats", 40u8), ("dogs", 200)] {
        std::fs::create_dir_all(dir.join("photos").join(class)).unwrap();
        for i in 0..3u8 {
            let image = image::RgbImage::from_fn(60, 40, |x, y| {
                image::Rgb([x as u8 * 4, y as u8 * 6, blue.wrapping_add(i)])
            });
            image.save(dir.join("photos").join(class).join(format!("{i}.png"))).unwrap();
        }
    }
}

#[test]
fn shows_views_and_what_was_drawn() {
    let dir = tempfile::tempdir().unwrap();
    photos(dir.path());
    let args = [
        "data",
        "preview",
        "--data",
        "photos",
        "--preset",
        "swav-multicrop-cifar",
        "--rows",
        "4",
        "--seed",
        "5",
        "--json",
        "--out",
        "views.png",
    ];
    let first = infomax(dir.path(), &args);
    let sheet = json(&first);
    let images = sheet["images"].as_array().unwrap();
    assert_eq!((images.len(), sheet["seed"].as_u64(), sheet["epoch"].as_u64()), (4, Some(5), Some(0)));
    for image in images {
        assert_eq!((image["width"].as_u64(), image["height"].as_u64()), (Some(60), Some(40)));
        assert_eq!(image["views"].as_array().unwrap().len(), 8);
        for view in image["views"].as_array().unwrap() {
            let side = |k: &str| view["crop"][k].as_u64().unwrap();
            assert!(side("x") + side("width") <= 60 && side("y") + side("height") <= 40);
        }
    }
    assert_eq!(images[0]["class"], "cats");
    let beside: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.path().join("views.json")).unwrap()).unwrap();
    assert_eq!(beside, sheet);
    let png = image::open(dir.path().join("views.png")).unwrap().to_rgb8();
    assert_eq!(png.dimensions(), (9 * 34 + 2, 4 * 34 + 2));

    // The same seed writes the same sheet, another one does not.
    let bytes = std::fs::read(dir.path().join("views.png")).unwrap();
    infomax(dir.path(), &args);
    assert_eq!(std::fs::read(dir.path().join("views.png")).unwrap(), bytes);
    let other: Vec<&str> = args.iter().map(|a| if *a == "5" { "6" } else { *a }).collect();
    assert_ne!(json(&infomax(dir.path(), &other))["images"], sheet["images"]);
}

#[test]
fn semantics_change_the_pixels_and_not_what_is_drawn() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("photos")).unwrap();
    for i in 0..3u32 {
        let noise = |v: u32| (v.wrapping_mul(2_654_435_761) >> 13) as u8;
        let image = image::RgbImage::from_fn(50, 40, |x, y| {
            image::Rgb([0, 1, 2].map(|c| noise(i + 3 * (c + 3 * (x + 50 * y)))))
        });
        image.save(dir.path().join(format!("photos/{i}.png"))).unwrap();
    }
    let sheet = |semantics: Option<&str>, rest: &[&str]| {
        let mut args = vec!["data", "preview", "--data", "photos", "--rows", "3", "--json", "--out", "v.png"];
        let set = semantics.map(|name| format!("augment.semantics={name}"));
        if let Some(set) = &set {
            args.extend(["--set", set.as_str()]);
        }
        args.extend(rest);
        let sheet = json(&infomax(dir.path(), &args));
        (sheet, image::open(dir.path().join("v.png")).unwrap().to_rgb8())
    };
    // With the recipe of the configuration, and with a preset by name.
    for rest in [&["--set", "augment.size=24"][..], &["--preset", "simclr-cifar"]] {
        let (pil, pixels) = sheet(None, rest);
        assert!(pil["recipe"]["semantics"].is_null());
        let (named, same) = sheet(Some("pil"), rest);
        assert!((&named, &same) == (&pil, &pixels));
        let mut seen = vec![pixels];
        for semantics in ["tensor", "tensor-v2"] {
            let (tensor, pixels) = sheet(Some(semantics), rest);
            assert_eq!(tensor["recipe"]["semantics"], semantics);
            assert_eq!(tensor["images"], pil["images"]);
            assert!(!seen.contains(&pixels), "{semantics} {rest:?}");
            seen.push(pixels);
        }
    }
    // A recipe that is written out says it itself.
    std::fs::write(
        dir.path().join("run.toml"),
        "[augment.recipe]\nmean = [0.5, 0.5, 0.5]\nstd = [0.2, 0.2, 0.2]\nsemantics = 'tensor'\n\
         [[augment.recipe.views]]\ncount = 2\nsize = 16\ncrop = { scale = [0.2, 1.0] }\n",
    )
    .unwrap();
    let (written, _) = sheet(None, &["--config", "run.toml"]);
    assert_eq!(written["recipe"]["semantics"], "tensor");
    let (other, _) = sheet(Some("tensor-v2"), &["--config", "run.toml"]);
    assert_eq!(other["recipe"]["semantics"], "tensor-v2");
    let shown = infomax(dir.path(), &["config", "show", "--set", "augment.semantics=tensor-v2"]).stdout;
    assert!(String::from_utf8_lossy(&shown).contains("semantics = \"tensor-v2\""));
    let output = Command::new(env!("CARGO_BIN_EXE_infomax"))
        .current_dir(dir.path())
        .args(["config", "show", "--set", "augment.semantics=tensors"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("tensor-v2"), "{message}");
}

#[test]
fn an_unchanged_view_is_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let image = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8 * 8, y as u8 * 8, 99]));
    std::fs::create_dir(dir.path().join("flat")).unwrap();
    image.save(dir.path().join("flat/a.png")).unwrap();
    infomax(
        dir.path(),
        &["data", "preview", "--data", "flat", "--preset", "none", "--rows", "9", "--out", "p.png"],
    );
    let png = image::open(dir.path().join("p.png")).unwrap().to_rgb8();
    assert_eq!(png.dimensions(), (3 * 34 + 2, 34 + 2), "one image, two views");
    for (x, y, px) in image.enumerate_pixels() {
        assert_eq!(png.get_pixel(x + 36, y + 2), px);
        assert_eq!(png.get_pixel(x + 70, y + 2), px);
    }
}

#[test]
fn lists_the_presets_and_names_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let all = json(&infomax(dir.path(), &["data", "preview", "--list", "--json"]));
    let names: Vec<&str> = all.as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert!(names.len() > 30 && names.contains(&"vicreg-imagenet") && names.contains(&"lejepa-minimal"));
    let text = infomax(dir.path(), &["data", "preview", "--list"]).stdout;
    assert!(String::from_utf8_lossy(&text).contains("swav-multicrop-cifar"));

    let fails = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_infomax"))
            .current_dir(dir.path())
            .args(["data", "preview", "--out", "x.png"])
            .args(args)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(fails(&["--preset", "vicreg"]).contains("vicreg-cifar"));
    assert!(fails(&["--preset", "vicreg-cifar@0"]).contains("NAME@SIZE"));
    assert!(fails(&["--rows", "0"]).contains("at least one image"));
    assert!(fails(&["--data", "missing"]).contains("missing"));
}
