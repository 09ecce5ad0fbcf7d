//! Objectives as TOML.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use infomax_losses::{EntropyConfig, InvarianceConfig, ObjectiveConfig, names};

#[test]
fn written_out_and_named_are_the_same() {
    let written: ObjectiveConfig = toml::from_str(
        "name = \"vicreg\"\n[invariance]\nkind = \"mse\"\nweight = 25.0\n\
         [entropy]\nkind = \"vicreg\"\nvariance = 25\ncovariance = 1.0\n",
    )
    .unwrap();
    assert_eq!(written, ObjectiveConfig::named("vicreg").unwrap());
}

#[test]
fn every_name_builds_and_survives_toml() {
    for named in names() {
        for convention in named.conventions {
            let config = ObjectiveConfig::with_convention(named.name, convention).unwrap();
            assert_eq!(config.build().unwrap().name(), named.name);
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<ObjectiveConfig>(&text).unwrap(), config, "{text}");
        }
    }
}

#[test]
fn every_kind_survives_toml() {
    for kind in EntropyConfig::KINDS {
        let entropy = EntropyConfig::of_kind(kind).unwrap();
        for invariance in InvarianceConfig::KINDS {
            let invariance: InvarianceConfig = toml::from_str(&format!("kind = \"{invariance}\"")).unwrap();
            let config = ObjectiveConfig::custom(invariance, entropy.clone());
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<ObjectiveConfig>(&text).unwrap(), config, "{text}");
        }
    }
}

#[test]
fn mistakes_name_the_nearest_valid_ones() {
    let message = |text: &str| toml::from_str::<ObjectiveConfig>(text).unwrap_err().to_string();
    let unknown = message("name = \"vicregg\"");
    assert!(unknown.contains("did you mean `vicreg`"), "{unknown}");
    let kind = message("name = \"vicreg\"\n[entropy]\nkind = \"vicrag\"");
    assert!(kind.contains("`vicreg`"), "{kind}");
    let field = message("name = \"vicreg\"\n[entropy]\nkind = \"vicreg\"\nvarience = 3.0");
    assert!(field.contains("varience"), "{field}");
    let convention = message("name = \"vicreg\"\nconvention = \"mine\"");
    assert!(convention.contains("solo-learn"), "{convention}");
    assert!(message("convention = \"official\"").contains("name"));
    let none: ObjectiveConfig =
        toml::from_str("[invariance]\nkind = \"none\"\n[entropy]\nkind = \"none\"").unwrap();
    assert!(none.build().is_err());
}

/// The nearest names by their words; kinds of terms are recognized.
#[test]
fn unknown_names_lead_to_what_was_meant() {
    let message = |name: &str| ObjectiveConfig::named(name).unwrap_err().to_string();
    for (name, meant) in [
        ("barlow", "did you mean `barlow-twins`,"),
        ("Barlow_Twins", "did you mean `barlow-twins`?"),
        ("vicregg", "did you mean `vicreg`"),
        ("logdet", "`byol-logdet`, `simclr-logdet`, `vicreg-logdet`"),
        ("logdet", "entropy.kind = \"logdet\""),
        ("sigreg", "`lejepa`"),
        ("cosine", "invariance.kind = \"cosine\""),
    ] {
        assert!(message(name).contains(meant), "{name}: {}", message(name));
    }
}

/// What is written where something else belongs is told in the words of the configuration.
#[test]
fn wrong_types_say_what_to_write() {
    for (table, words) in [
        ("kind = \"vicreg\"\nvariance = \"much\"", "variance = \"much\": write a number"),
        ("kind = \"vicreg\"\nvariance = [1]", "variance = a list or a table: write a number"),
        ("kind = \"vicreg\"\npath = 3", "path = 3: write one of auto, gram, features"),
        ("kind = \"vicreg\"\npath = \"grams\"", "write one of auto, gram, features"),
        ("kind = \"kde\"\nleave_one_out = 1", "leave_one_out = 1: write true or false"),
        ("kind = \"swav\"\nprototypes = 2.5", "prototypes = 2.5: write a whole number"),
        ("kind = \"swav\"\nprototypes = -2", "prototypes = -2: write a whole number"),
        ("kind = 3", "write the name of an entropy kind: none, vicreg"),
    ] {
        let message = toml::from_str::<EntropyConfig>(table).unwrap_err().to_string();
        assert!(message.contains(words), "{table}: {message}");
        assert!(!message.contains("untagged") && !message.contains("f64"), "{message}");
    }
    for text in ["name = \"vicreg\"\nentropy = 3", "name = \"vicreg\"\nentropy = \"logdet\""] {
        let message = toml::from_str::<ObjectiveConfig>(text).unwrap_err().to_string();
        assert!(message.contains("entropy.kind = \""), "{text}: {message}");
    }
    let whole: EntropyConfig = toml::from_str("kind = \"swav\"\nprototypes = 20.0\nweight = 2").unwrap();
    let EntropyConfig::Swav(swav) = whole else { panic!("{whole:?}") };
    assert_eq!((swav.prototypes, swav.weight), (20, 2.0));
}

/// Every number of every term that has no meaning below 0, or that is none, is refused by its key when the objective
/// is built.
#[test]
fn settings_out_of_range_are_refused_by_their_key() {
    let with = |table: &toml::Table, key: &str, value: f64| {
        let mut table = table.clone();
        table.insert(key.to_owned(), toml::Value::Float(value));
        table
    };
    let signed = |key: &str| ["offset", "mu"].contains(&key);
    let mut seen = 0;
    for kind in EntropyConfig::KINDS {
        let entropy = EntropyConfig::of_kind(kind).unwrap();
        let table = toml::Table::try_from(&entropy).unwrap();
        for (key, _) in table.iter().filter(|(_, value)| value.is_float()) {
            for bad in [-1.0, f64::NAN, f64::INFINITY] {
                if *kind == "rectified" && signed(key) && bad == -1.0 {
                    continue;
                }
                let entropy: EntropyConfig = with(&table, key, bad).try_into().unwrap();
                let invariance = InvarianceConfig::Mse(Default::default());
                let built = ObjectiveConfig::custom(invariance, entropy).build();
                let message = built.err().map(|e| e.to_string()).unwrap_or_default();
                assert!(message.starts_with(&format!("entropy.{key} = ")), "{kind} {key} {bad}: {message}");
                seen += 1;
            }
        }
    }
    for kind in InvarianceConfig::KINDS {
        let invariance: InvarianceConfig = toml::from_str(&format!("kind = \"{kind}\"")).unwrap();
        let table = toml::Table::try_from(&invariance).unwrap();
        for (key, _) in table.iter().filter(|(_, value)| value.is_float()) {
            for bad in [-1.0, f64::NAN, f64::INFINITY] {
                if signed(key) && bad == -1.0 {
                    continue;
                }
                let invariance: InvarianceConfig = with(&table, key, bad).try_into().unwrap();
                let entropy = EntropyConfig::of_kind("none").unwrap();
                let built = ObjectiveConfig::custom(invariance, entropy).build();
                let message = built.err().map(|e| e.to_string()).unwrap_or_default();
                assert!(
                    message.starts_with(&format!("invariance.{key} = ")),
                    "{kind} {key} {bad}: {message}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "{seen}");
    for (text, key) in [
        ("kind = \"contrastive\"\ntemperature = 0", "entropy.temperature"),
        ("kind = \"kde\"\nvariance = 0", "entropy.variance"),
        ("kind = \"sigreg\"\nslices = 0", "entropy.slices"),
        ("kind = \"kozachenko-leonenko\"\nk = 0", "entropy.k"),
        ("kind = \"pairdist\"\nalpha = 1.0", "entropy.alpha"),
        ("kind = \"tico\"\nbeta = 1.5", "entropy.beta"),
    ] {
        let entropy: EntropyConfig = toml::from_str(text).unwrap();
        let invariance = InvarianceConfig::Mse(Default::default());
        let message = ObjectiveConfig::custom(invariance, entropy).build().unwrap_err().to_string();
        assert!(message.starts_with(key), "{text}: {message}");
    }
}

/// A temperature that two terms share stands once: what follows from it follows, and a contradiction is refused.
#[test]
fn shared_quantities_stand_once() {
    let read = |text: &str| toml::from_str::<ObjectiveConfig>(text).unwrap();
    for name in ["simclr", "dcl", "dclw", "supcon"] {
        for text in [
            format!("name = \"{name}\"\ntemperature = 0.1"),
            format!(
                "name = \"{name}\"\n[entropy]\nkind = \"contrastive\"\ntemperature = 0.1\ndecoupled = {}",
                name.starts_with("dcl")
            ),
        ] {
            let config = read(&text);
            let EntropyConfig::Contrastive(entropy) = &config.entropy else { panic!("{config:?}") };
            assert_eq!((config.invariance.weight(), entropy.temperature), (10.0, 0.1), "{text}");
            config.build().unwrap();
            assert_eq!(
                toml::from_str::<ObjectiveConfig>(&toml::to_string(&config).unwrap()).unwrap(),
                config
            );
        }
        let mut config = ObjectiveConfig::named(name).unwrap();
        config.invariance = InvarianceConfig::Cosine(infomax_losses::invariance::Cosine::default());
        let message = config.build().unwrap_err().to_string();
        assert!(
            message.contains("invariance.weight") && message.contains("objective.temperature"),
            "{message}"
        );
        config.name = "custom".into();
        config.build().unwrap();
    }
    let twice = "name = \"simclr\"\ntemperature = 0.2\n[entropy]\nkind = \"contrastive\"\ntemperature = 0.1";
    assert!(read(twice).build().unwrap_err().to_string().contains("entropy.temperature = 0.1"));
    for name in ["vicreg", "custom"] {
        let text = "temperature = 0.2\n[invariance]\nkind = \"mse\"\n[entropy]\nkind = \"vicreg\"";
        let text = format!("name = \"{name}\"\n{text}");
        let built = toml::from_str::<ObjectiveConfig>(&text).map_err(|e| e.to_string());
        let message = built.and_then(|c| c.build().map_err(|e| e.to_string())).unwrap_err();
        assert!(message.contains("no temperature"), "{name}: {message}");
    }
    let lejepa = read("name = \"lejepa\"\n[entropy]\nkind = \"sigreg\"\nweight = 0.1");
    assert!((lejepa.invariance.weight() - 0.9).abs() < 1e-12);
    let vicregl = read("name = \"vicregl\"\n[entropy]\nkind = \"vicregl\"\nalpha = 1.0");
    assert_eq!(vicregl.invariance.weight(), 25.0);
}
