//! Feature gates. Those of other Kubernetes programs, or of other versions, are tolerated, so that
//! one list can be used cluster-wide.

use std::collections::BTreeMap;

/// Whether `spec.externalIPs` of Services is honoured.
pub(super) const ALLOW_SERVICE_EXTERNAL_IPS: &str = "AllowServiceExternalIPs";
/// Whether the metrics server answers `/flagz`.
pub(super) const COMPONENT_FLAGZ: &str = "ComponentFlagz";
/// Whether the metrics server answers `/statusz`.
pub(super) const COMPONENT_STATUSZ: &str = "ComponentStatusz";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
    /// Generally available, can still be switched off.
    Stable,
    /// Generally available, always on.
    Locked,
}

/// The gates that kube-proxy 1.36 looks at. Alpha ones are off by default, all others on.
const GATES: [(&str, Stage); 10] = [
    (ALLOW_SERVICE_EXTERNAL_IPS, Stage::Stable),
    (COMPONENT_FLAGZ, Stage::Beta),
    (COMPONENT_STATUSZ, Stage::Beta),
    ("ContextualLogging", Stage::Beta),
    ("LoggingAlphaOptions", Stage::Alpha),
    ("LoggingBetaOptions", Stage::Beta),
    ("MultiCIDRServiceAllocator", Stage::Locked),
    ("NFTablesProxyMode", Stage::Locked),
    ("NativeHistograms", Stage::Alpha),
    ("PreferSameTrafficDistribution", Stage::Locked),
];

const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

/// Whether a gate is on.
pub(super) fn enabled(given: &BTreeMap<String, bool>, name: &str) -> bool {
    if let Some(on) = given.get(name) {
        return *on;
    }
    let all = |name: &str, default| given.get(name).copied().unwrap_or(default);
    match stage(name) {
        Some(Stage::Alpha) => all(ALL_ALPHA, false),
        Some(Stage::Beta) => all(ALL_BETA, true),
        Some(Stage::Stable | Stage::Locked) => true,
        None => false,
    }
}

/// Fails if a gate is set that cannot be.
pub(super) fn check(given: &BTreeMap<String, bool>) -> Result<(), String> {
    let locked = |name: &str| stage(name) == Some(Stage::Locked);
    match given.iter().find(|(name, on)| !**on && locked(name)) {
        Some((name, _)) => {
            Err(format!("cannot set feature gate {name} to false, feature is locked to true"))
        }
        None => Ok(()),
    }
}

/// What to say about the given gates.
pub(super) fn warnings(given: &BTreeMap<String, bool>) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, on) in given {
        match stage(name) {
            None if name != ALL_ALPHA && name != ALL_BETA => {
                warnings.push(format!("unrecognized feature gate: {name}"));
            }
            Some(Stage::Locked) => warnings.push(format!(
                "Setting GA feature gate {name}={on}. It will be removed in a future release."
            )),
            _ => {}
        }
    }
    warnings
}

/// The map as Go prints it.
pub(super) fn go_map(given: &BTreeMap<String, bool>) -> String {
    let list: Vec<_> = given.iter().map(|(name, on)| format!("{name:?}:{on}")).collect();
    format!("map[string]bool{{{}}}", list.join(", "))
}

fn stage(name: &str) -> Option<Stage> {
    GATES.iter().find(|(known, _)| *known == name).map(|(_, stage)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(list: &[(&str, bool)]) -> BTreeMap<String, bool> {
        list.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect()
    }

    #[test]
    fn a_gate_wins_over_its_stage_and_that_over_the_default() {
        let enabled = |list: &[_], name| enabled(&given(list), name);
        assert!(enabled(&[], ALLOW_SERVICE_EXTERNAL_IPS));
        assert!(!enabled(&[(ALLOW_SERVICE_EXTERNAL_IPS, false)], ALLOW_SERVICE_EXTERNAL_IPS));
        assert!(enabled(&[], COMPONENT_FLAGZ));
        assert!(!enabled(&[(ALL_BETA, false)], COMPONENT_FLAGZ));
        assert!(enabled(&[(ALL_BETA, false), (COMPONENT_FLAGZ, true)], COMPONENT_FLAGZ));
        assert!(enabled(&[(ALL_BETA, false)], ALLOW_SERVICE_EXTERNAL_IPS));
        assert!(enabled(&[(ALL_ALPHA, true)], "NativeHistograms"));
    }

    #[test]
    fn locked_gates_cannot_be_switched_off_and_unknown_ones_are_tolerated() {
        let locked = given(&[("NFTablesProxyMode", false)]);
        assert_eq!(
            check(&locked).unwrap_err(),
            "cannot set feature gate NFTablesProxyMode to false, feature is locked to true"
        );
        let list = given(&[("NFTablesProxyMode", true), ("RotateKubeletServerCertificate", true)]);
        assert_eq!(check(&list), Ok(()));
        assert_eq!(
            warnings(&list),
            [
                "Setting GA feature gate NFTablesProxyMode=true. It will be removed in a future \
                 release.",
                "unrecognized feature gate: RotateKubeletServerCertificate",
            ]
        );
    }
}
