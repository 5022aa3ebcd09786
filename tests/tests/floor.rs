//! The tool that measures the floor programs what it says; how fast is not tested.

use std::process::Command;

use proxier_tests::command::output;
use serde_json::Value;

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn the_loop_and_the_crates_program_the_same() {
    for via in ["loop", "crates"] {
        let mut floor = Command::new(env!("CARGO_BIN_EXE_floor"));
        floor.args(["--services", "700", "--endpoints", "3", "--via", via]);
        // It fails itself unless everything is there in the end.
        let report: Value = serde_json::from_str(&output(&mut floor).unwrap()).unwrap();
        let messages: Vec<_> = report["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|part| (part["name"].as_str().unwrap(), part["messages"].as_u64().unwrap()))
            .collect();
        assert_eq!(
            messages,
            [("virtual servers", 700), ("real servers", 2100), ("addresses", 700)],
            "{report}"
        );
    }
}
