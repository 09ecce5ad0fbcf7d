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
