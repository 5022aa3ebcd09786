//! Between the backends, under load, while somebody who is shut out tries all the time.

use super::hand_over::load;
use super::*;

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn nothing_is_lost_or_opened_between_iptables_and_nftables() {
    there_and_back().unwrap();
}

fn there_and_back() -> Result<()> {
    require_test_kernel()?;
    let scenario = Scenario::load("dual-stack-service")?;
    let [space, client, pod, other] = build(&scenario, PODS)?;
    let _servers = serve([&pod, &other])?;
    let mut node = Node::new(&space, &scenario.steps[0])?;
    let objects = node.scratch.path().join("manifests/closed.yaml");
    node.add_closed()?;
    let begin = Instant::now();
    let (held, per_second) = load();
    let mut traffic = Traffic::start(&client, &VIPS, held, per_second)?;
    traffic.try_closed(&client)?;
    traffic.goes_on("left by kube-proxy's IPVS mode")?;

    let proxier = program("proxier")?;
    let mut switched = 0;
    for backend in ["nftables", "iptables", "nftables", "iptables"] {
        let operations = node.start_with(&proxier, &format!("--firewall={backend}"))?;
        let touched = |operation: &&String| {
            ["remove virtual server", "remove real server", "unbind"]
                .iter()
                .any(|verb| operation.starts_with(verb))
        };
        let touched: Vec<_> = operations.iter().filter(touched).collect();
        ensure!(touched.is_empty(), "to {backend}: {touched:#?}");
        traffic.goes_on(&format!("switched to {backend}"))?;
        node.stop()?;
        switched += 1;
    }

    // Back to kube-proxy's IPVS mode, which finds what it knows.
    fs::remove_file(&objects)?;
    node.start_with(&proxier, "--firewall=iptables")?;
    traffic.goes_on("without the closed service")?;
    node.stop()?;
    node.is_as_left("given back")?;
    let tables = space.sh("nft list tables")?;
    ensure!(!tables.contains("proxier"), "{tables}");

    // Clean-up opens nothing either. It ends the services: their connections first.
    let shut_out = traffic.shut_out.take();
    let took = begin.elapsed().as_secs_f64();
    let (made, kept) = traffic.end()?;
    node.add_closed()?;
    node.start_with(&proxier, "--firewall=nftables")?;
    node.stop()?;
    output(space.command(&proxier).arg("cleanup"))?;
    let report = shut_out.context("who is shut out")?.end()?;
    ensure!(report.answered() == 0 && report.failed() > 0, "closed: {report:?}");
    figure(&format!(
        "{switched} changes between the backends: {kept} connections kept, {made} new ones in \
         {took:.1} s ({:.0} a second), 0 failed; of {} that are closed out, through: 0",
        f64::from(made) / took,
        report.failed(),
    ));
    Ok(())
}
