//! With Local policies split: the marks come and go under load, and connections of clients inside and outside
//! do not notice.

use super::*;

/// Its load balancer IPs.
const OUTSIDE: [&str; 2] = [VIPS[0], VIPS[2]];

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn connections_survive_taking_over_a_local_policy_that_is_split() {
    take_over_split().unwrap();
}

fn take_over_split() -> Result<()> {
    require_test_kernel()?;
    let scenario = Scenario::load("dual-stack-service")?;
    let [space, client, pod, other] = build(&scenario, PODS)?;
    let _servers = serve([&pod, &other])?;
    let mut node = Node::new(&space, &scenario.steps[0])?;
    let objects = fs::read_to_string(&scenario.steps[0].objects)?;
    let kind = "  type: LoadBalancer\n";
    ensure!(objects.matches(kind).count() == 1, "{objects}");
    let local = objects.replace(kind, &format!("{kind}  externalTrafficPolicy: Local\n"));
    node.scratch.replace("manifests/objects.yaml", local)?;
    let proxier = program("proxier")?;
    // What kube-proxy would have: the goldens say so.
    node.start(&proxier)?;
    node.stop()?;

    let begin = Instant::now();
    let mut traffic = Traffic::start(&client, &VIPS, 100, 100)?;
    // A pod that is itself an endpoint.
    let mut inside = Traffic::start(&pod, &OUTSIDE, 40, 40)?;
    let mut goes_on = |when: &str, everybody: bool| -> Result<()> {
        traffic.goes_on(when)?;
        inside.goes_on(when)?;
        for rate in inside.rates.iter_mut().filter(|_| everybody) {
            // From now on, by both.
            let before = rate.so_far()?.answers;
            let more = |now: &Report, pod: &str| {
                now.answers.get(pod).copied() > before.get(pod).copied().or(Some(0))
            };
            rate.until(|now| PODS.iter().all(|(pod, ..)| more(now, pod)))
                .with_context(|| format!("both pods answer one inside, {when}"))?;
        }
        Ok(())
    };
    goes_on("as kube-proxy has it", false)?;

    node.policy = "split";
    let operations = node.start(&proxier)?;
    let takes = |operation: &String| {
        ["remove virtual server", "remove real server", "unbind", "set real server"]
            .iter()
            .any(|verb| operation.starts_with(verb))
    };
    ensure!(!operations.iter().any(takes), "taken over with {operations:#?}");
    ensure!(operations.iter().any(|it| it.contains("mark ")), "{operations:#?}");
    goes_on("split", true)?;
    // SIGKILL, SIGTERM, an upgrade: what is there is adopted as it is.
    node.daemon = None;
    goes_on("killed", true)?;
    let upgrade: PathBuf = node.scratch.path().join("proxier-next");
    fs::copy(&proxier, &upgrade)?;
    for (program, when) in [(&proxier, "restarted"), (&upgrade, "upgraded")] {
        let mut operations = node.start(program)?;
        operations.retain(|operation| !operation.starts_with("renew "));
        ensure!(operations.is_empty(), "{when} with {operations:#?}");
        goes_on(when, true)?;
        node.stop()?;
        goes_on("stopped", true)?;
    }
    // Back to kube-proxy's way, and then once more.
    node.policy = "kube-proxy";
    node.start(&proxier)?;
    goes_on("given back", false)?;
    node.stop()?;
    node.policy = "split";
    node.start(&proxier)?;
    goes_on("split again", true)?;
    node.stop()?;

    let took = begin.elapsed().as_secs_f64();
    let ((made, kept), (made_inside, kept_inside)) = (traffic.end()?, inside.end()?);
    figure(&format!(
        "a Local policy split, SIGKILL, SIGTERM, upgrade, given back, split: outside {kept} connections kept and \
         {made} new, inside {kept_inside} and {made_inside}, in {took:.1} s, 0 failed"
    ));
    Ok(())
}
