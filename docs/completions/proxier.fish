# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_proxier_global_optspecs
    string join \n dry-run= watch= strict= manifests= node-address= o/output= firewall= local-policy= local-policy-marks= node-weights= drain-timeout= answer-ping= accept-input= source-ranges-everywhere= allow-reserved-ips= memory-limit= ipvs-run-estimation= ipvs-est-cpulist= ipvs-est-nice= service-metrics= config= write-config-to= cleanup= init-only= master= hostname-override= version= v/v= vmodule= logging-format= log-flush-frequency= log-text-split-stream= log-text-info-buffer-size= log-json-split-stream= log-json-info-buffer-size= boot-id-file= machine-id-file= kubeconfig= feature-gates= kube-api-content-type= kube-api-qps= kube-api-burst= bind-address= healthz-bind-address= metrics-bind-address= healthz-port= metrics-port= bind-address-hard-fail= profiling= show-hidden-metrics-for-version= proxy-mode= iptables-masquerade-bit= masquerade-all= iptables-localhost-nodeports= iptables-sync-period= iptables-min-sync-period= ipvs-sync-period= ipvs-min-sync-period= ipvs-scheduler= ipvs-exclude-cidrs= ipvs-strict-arp= ipvs-tcp-timeout= ipvs-tcpfin-timeout= ipvs-udp-timeout= detect-local-mode= pod-bridge-interface= pod-interface-name-prefix= cluster-cidr= nodeport-addresses= oom-score-adj= conntrack-max-per-core= conntrack-min= conntrack-tcp-timeout-established= conntrack-tcp-timeout-close-wait= conntrack-tcp-be-liberal= conntrack-udp-timeout= conntrack-udp-timeout-stream= config-sync-period= h/help
end

function __fish_proxier_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_proxier_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_proxier_using_subcommand
    set -l cmd (__fish_proxier_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c proxier -n "__fish_proxier_needs_command" -l dry-run -d 'Compute and print what the kernel should hold, write nothing, and exit' -r
complete -c proxier -n "__fish_proxier_needs_command" -l watch -d 'With --dry-run and status: keep running and print every change' -r
complete -c proxier -n "__fish_proxier_needs_command" -l strict -d 'With --dry-run: end with status 1 if something of the manifests was ignored or has unknown fields, an EndpointSlice has no Service, or no Service is there' -r
complete -c proxier -n "__fish_proxier_needs_command" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_needs_command" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_needs_command" -s o -l output -d 'How to print' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_needs_command" -l firewall -d 'What keeps rules and sets: iptables with ipset, a table of nftables, or iptables where it works and else nftables' -r -f -a "auto\t'iptables where its programs and ipset work, else nftables'
iptables\t'iptables and ipset'
nftables\t'One table of nftables for each family; no program is started'"
complete -c proxier -n "__fish_proxier_needs_command" -l local-policy -d 'What externalTrafficPolicy Local means: for clients outside the cluster only, as Kubernetes says it, or for all clients alike, as in kube-proxy\'s IPVS mode' -r -f -a "split\t'Clients outside the cluster reach endpoints on this node only, and pods and the node reach all'
kube-proxy\t'All clients reach endpoints on this node; where there is none, all endpoints'"
complete -c proxier -n "__fish_proxier_needs_command" -l local-policy-marks -d 'The firewall marks by which clients inside the cluster are led to all endpoints: bits that all have, and bits that are ours. They must not be those of anybody else on this node' -r
complete -c proxier -n "__fish_proxier_needs_command" -l node-weights -d 'Heed the annotation proxier.io/weight of Nodes, which needs a watch of the metadata of all Nodes. Those in manifests are heeded anyway' -r
complete -c proxier -n "__fish_proxier_needs_command" -l drain-timeout -d 'How long a removed real server may keep its open connections; 0 cuts them at once' -r
complete -c proxier -n "__fish_proxier_needs_command" -l answer-ping -d 'Let service addresses answer pings, which kube-proxy refuses' -r
complete -c proxier -n "__fish_proxier_needs_command" -l accept-input -d 'Accept packets to services in the INPUT chain of iptables, for hosts that drop there what no rule accepts. Node ports are accepted on every address of the node. Without effect where nftables is the backend' -r
complete -c proxier -n "__fish_proxier_needs_command" -l source-ranges-everywhere -d 'Apply loadBalancerSourceRanges to a Service\'s node ports and external IPs too' -r
complete -c proxier -n "__fish_proxier_needs_command" -l allow-reserved-ips -d 'Let external and load balancer IPs of Services be addresses that this node needs to reach its API server (comma-separated). They are never bound otherwise' -r
complete -c proxier -n "__fish_proxier_needs_command" -l memory-limit -d 'Memory that this process may have, in MiB; what Services ask for beyond it is left out (default: the limit of the control group, or 2048)' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-run-estimation -d 'Whether IPVS keeps counters and rates of its servers, which costs processor time and on kernels before 6.2 latency (default: as the kernel is)' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-est-cpulist -d 'The CPUs that compute these rates, such as 0-3,5 (Linux 6.2; default: as the kernel is)' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-est-nice -d 'The niceness of the threads that compute them (Linux 6.2; default: as the kernel is)' -r
complete -c proxier -n "__fish_proxier_needs_command" -l service-metrics -d 'Show the kernel\'s counters of each service and endpoint among the metrics, for these namespaces or * for all. They cost two system calls for each virtual server in each scrape, and eight time series for each endpoint' -r
complete -c proxier -n "__fish_proxier_needs_command" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_needs_command" -l write-config-to -d 'Write the resolved configuration to this file and exit' -r -F
complete -c proxier -n "__fish_proxier_needs_command" -l cleanup -d 'Remove everything from the kernel and exit' -r
complete -c proxier -n "__fish_proxier_needs_command" -l init-only -d 'Do only what needs more privileges than running does, and exit' -r
complete -c proxier -n "__fish_proxier_needs_command" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_needs_command" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_needs_command" -l version -d 'Print the version and exit; with `--version=raw` the number alone' -r
complete -c proxier -n "__fish_proxier_needs_command" -s v -l v -d 'Verbosity of the log: 0 real changes, 2 and more details, 4 every step, 6 the libraries too' -r
complete -c proxier -n "__fish_proxier_needs_command" -l vmodule -d 'Verbosity of single source files: PATTERN=N, comma-separated' -r
complete -c proxier -n "__fish_proxier_needs_command" -l logging-format -d 'Form of log lines: text or json' -r
complete -c proxier -n "__fish_proxier_needs_command" -l log-flush-frequency -d 'Longest time between flushes of the log' -r
complete -c proxier -n "__fish_proxier_needs_command" -l log-text-split-stream -d 'Text log: errors to standard error, everything else to standard output' -r
complete -c proxier -n "__fish_proxier_needs_command" -l log-text-info-buffer-size -d 'Text log: bytes to buffer with split streams' -r
complete -c proxier -n "__fish_proxier_needs_command" -l log-json-split-stream -d 'JSON log: errors to standard error, everything else to standard output' -r
complete -c proxier -n "__fish_proxier_needs_command" -l log-json-info-buffer-size -d 'JSON log: bytes to buffer with split streams' -r
complete -c proxier -n "__fish_proxier_needs_command" -l boot-id-file -d 'Accepted and ignored' -r
complete -c proxier -n "__fish_proxier_needs_command" -l machine-id-file -d 'Accepted and ignored' -r
complete -c proxier -n "__fish_proxier_needs_command" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_needs_command" -l feature-gates -d 'Feature gates: NAME=BOOL, comma-separated' -r
complete -c proxier -n "__fish_proxier_needs_command" -l kube-api-content-type -d 'Encoding of requests' -r
complete -c proxier -n "__fish_proxier_needs_command" -l kube-api-qps -d 'Requests a second to the API server' -r
complete -c proxier -n "__fish_proxier_needs_command" -l kube-api-burst -d 'Requests at once to the API server' -r
complete -c proxier -n "__fish_proxier_needs_command" -l bind-address -d 'The node\'s IP, if specific; nothing is bound to it' -r
complete -c proxier -n "__fish_proxier_needs_command" -l healthz-bind-address -d 'Where the health server listens' -r
complete -c proxier -n "__fish_proxier_needs_command" -l metrics-bind-address -d 'Where the metrics server listens' -r
complete -c proxier -n "__fish_proxier_needs_command" -l healthz-port -d 'Port of the health server if its address has none; 0 switches it off (deprecated)' -r
complete -c proxier -n "__fish_proxier_needs_command" -l metrics-port -d 'Port of the metrics server if its address has none (deprecated)' -r
complete -c proxier -n "__fish_proxier_needs_command" -l bind-address-hard-fail -d 'End when one of the two servers cannot listen' -r
complete -c proxier -n "__fish_proxier_needs_command" -l profiling -d 'Go profiles on the metrics server' -r
complete -c proxier -n "__fish_proxier_needs_command" -l show-hidden-metrics-for-version -d 'Show metrics hidden since this version' -r
complete -c proxier -n "__fish_proxier_needs_command" -l proxy-mode -d 'iptables, ipvs or nftables; proxier always runs IPVS' -r
complete -c proxier -n "__fish_proxier_needs_command" -l iptables-masquerade-bit -d 'Bit of the packet mark that asks for masquerading' -r
complete -c proxier -n "__fish_proxier_needs_command" -l masquerade-all -d 'Masquerade all traffic to service addresses' -r
complete -c proxier -n "__fish_proxier_needs_command" -l iptables-localhost-nodeports -d 'Node ports on loopback addresses' -r
complete -c proxier -n "__fish_proxier_needs_command" -l iptables-sync-period -d 'As --ipvs-sync-period, which goes before' -r
complete -c proxier -n "__fish_proxier_needs_command" -l iptables-min-sync-period -d 'As --ipvs-min-sync-period, which goes before' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-sync-period -d 'How often everything is checked against the kernel' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-min-sync-period -d 'How long changes are collected after a sync' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-scheduler -d 'Scheduler of all virtual servers: rr, wrr, lc, wlc, sh, mh and others' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-exclude-cidrs -d 'Where foreign virtual servers are left alone (comma-separated)' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-strict-arp -d 'Answer ARP only for the addresses of the interface asked' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-tcp-timeout -d 'Idle time of TCP connections; 0 leaves the kernel\'s' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-tcpfin-timeout -d 'Idle time of TCP connections after a FIN; 0 leaves the kernel\'s' -r
complete -c proxier -n "__fish_proxier_needs_command" -l ipvs-udp-timeout -d 'Idle time of UDP; 0 leaves the kernel\'s' -r
complete -c proxier -n "__fish_proxier_needs_command" -l detect-local-mode -d 'ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix' -r
complete -c proxier -n "__fish_proxier_needs_command" -l pod-bridge-interface -d 'The bridge that pods are attached to, with BridgeInterface' -r
complete -c proxier -n "__fish_proxier_needs_command" -l pod-interface-name-prefix -d 'What the names of the pods\' interfaces begin with, with InterfaceNamePrefix' -r
complete -c proxier -n "__fish_proxier_needs_command" -l cluster-cidr -d 'The pods\' addresses: one CIDR, or one of each family with a comma between' -r
complete -c proxier -n "__fish_proxier_needs_command" -l nodeport-addresses -d 'Where node ports listen: CIDRs (comma-separated), or primary alone' -r
complete -c proxier -n "__fish_proxier_needs_command" -l oom-score-adj -d 'oom_score_adj of the process, -1000 to 1000' -r
complete -c proxier -n "__fish_proxier_needs_command" -l conntrack-max-per-core -d 'Connection tracking entries for each CPU; 0 leaves the kernel\'s limit' -r
complete -c proxier -n "__fish_proxier_needs_command" -l conntrack-min -d 'Least number of connection tracking entries' -r
complete -c proxier -n "__fish_proxier_needs_command" -l conntrack-tcp-timeout-established -d 'Idle time of established TCP connections in connection tracking' -r
complete -c proxier -n "__fish_proxier_needs_command" -l conntrack-tcp-timeout-close-wait -d 'Idle time of TCP connections in CLOSE_WAIT in connection tracking' -r
complete -c proxier -n "__fish_proxier_needs_command" -l conntrack-tcp-be-liberal -d 'Accept packets outside the TCP window in connection tracking' -r
complete -c proxier -n "__fish_proxier_needs_command" -l conntrack-udp-timeout -d 'Idle time of one-way UDP flows in connection tracking' -r
complete -c proxier -n "__fish_proxier_needs_command" -l conntrack-udp-timeout-stream -d 'Idle time of two-way UDP flows in connection tracking' -r
complete -c proxier -n "__fish_proxier_needs_command" -l config-sync-period -d 'How often the watches list everything again' -r
complete -c proxier -n "__fish_proxier_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "diff" -d 'Show what would change in the live kernel: exit status 0 nothing, 1 something, 2 unknown'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "explain" -d 'Say why Services look as they do on this node: which endpoints are used, which are not, and why'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "get" -d 'List Services, endpoints or virtual servers as they are on this node, those with a problem first'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "trace" -d 'Follow the first packet of a connection through this node\'s rules, sets and virtual servers, step by step: exit status 0 an endpoint is reached, 2 refused, 3 dropped, 4 not taken by a Service, 1 not known'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "top" -d 'Show what goes through Services and endpoints now: connections and bytes a second, the busiest first'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "status" -d 'Show what the running proxy of this node knows: exit status 0 in sync, 2 in sync but something needs attention, 1 anything else'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "migrate" -d 'Show what taking over this node from kube-proxy would change: exit status as for diff'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "report" -d 'Print what a bug report needs: version, configuration, status, metrics, kernel and host. No token, key or kubeconfig is in it; names and addresses of Services, endpoints and nodes are'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "version" -d 'Print the version, the commit and what this program was built with'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "completion" -d 'Print what a shell needs to complete commands and flags'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "cleanup" -d 'Remove everything from the kernel that this proxy or kube-proxy put there'
complete -c proxier -n "__fish_proxier_needs_command" -f -a "hand-over" -d 'Run as the proxy until kube-proxy in another mode, started beside it, has every Service and no connection is left here; then remove everything of this proxy and end'
complete -c proxier -n "__fish_proxier_using_subcommand diff" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand diff" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand diff" -s o -l output -d 'How to print: table or json' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand diff" -l firewall -d 'What keeps rules and sets: iptables with ipset, a table of nftables, or iptables where it works and else nftables' -r -f -a "auto\t'iptables where its programs and ipset work, else nftables'
iptables\t'iptables and ipset'
nftables\t'One table of nftables for each family; no program is started'"
complete -c proxier -n "__fish_proxier_using_subcommand diff" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand diff" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand diff" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand diff" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_using_subcommand explain" -s n -l namespace -d 'Namespace of names that say none' -r
complete -c proxier -n "__fish_proxier_using_subcommand explain" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand explain" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand explain" -s o -l output -d 'How to print: table or json' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand explain" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand explain" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand explain" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand explain" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand explain" -s h -l help -d 'Print help'
complete -c proxier -n "__fish_proxier_using_subcommand get" -s n -l namespace -d 'Of this namespace (default: default)' -r
complete -c proxier -n "__fish_proxier_using_subcommand get" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand get" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand get" -s o -l output -d 'How to print: table, wide, json, yaml or name' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand get" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand get" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand get" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand get" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand get" -s A -l all-namespaces -d 'Of all namespaces'
complete -c proxier -n "__fish_proxier_using_subcommand get" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l interface -d 'The interface by which the packet comes in (default: by which this node reaches the client)' -r
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l dry-run -d 'Compute and print what the kernel should hold, write nothing, and exit' -r
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand trace" -s o -l output -d 'How to print: table or json' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l firewall -d 'What keeps rules and sets: iptables with ipset, a table of nftables, or iptables where it works and else nftables' -r -f -a "auto\t'iptables where its programs and ipset work, else nftables'
iptables\t'iptables and ipset'
nftables\t'One table of nftables for each family; no program is started'"
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand trace" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand trace" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_using_subcommand top" -s n -l namespace -d 'Of this namespace (default: of all, and virtual servers of no Service)' -r
complete -c proxier -n "__fish_proxier_using_subcommand top" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand top" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand top" -s o -l output -d 'How to print: table or json' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand top" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand top" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand top" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand top" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand top" -l once -d 'Print everything once, as is done where standard output is no terminal'
complete -c proxier -n "__fish_proxier_using_subcommand top" -s h -l help -d 'Print help'
complete -c proxier -n "__fish_proxier_using_subcommand status" -l wait -d 'Wait until the kernel is as wanted, then print the state in a line' -r -f -a "in-sync\t'In sync, whether or not something needs attention'"
complete -c proxier -n "__fish_proxier_using_subcommand status" -l timeout -d 'With --wait: exit with status 1 after this time (default 60s)' -r
complete -c proxier -n "__fish_proxier_using_subcommand status" -l watch -d 'With --dry-run and status: keep running and print every change' -r
complete -c proxier -n "__fish_proxier_using_subcommand status" -s o -l output -d 'How to print: table or json' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand status" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand status" -l metrics-bind-address -d 'Where the metrics server listens' -r
complete -c proxier -n "__fish_proxier_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -s o -l output -d 'How to print: table or json' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l firewall -d 'What keeps rules and sets: iptables with ipset, a table of nftables, or iptables where it works and else nftables' -r -f -a "auto\t'iptables where its programs and ipset work, else nftables'
iptables\t'iptables and ipset'
nftables\t'One table of nftables for each family; no program is started'"
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -l check -d 'Only look; the taking over itself is what the running proxy does'
complete -c proxier -n "__fish_proxier_using_subcommand migrate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_using_subcommand report" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand report" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand report" -l firewall -d 'What keeps rules and sets: iptables with ipset, a table of nftables, or iptables where it works and else nftables' -r -f -a "auto\t'iptables where its programs and ipset work, else nftables'
iptables\t'iptables and ipset'
nftables\t'One table of nftables for each family; no program is started'"
complete -c proxier -n "__fish_proxier_using_subcommand report" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand report" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand report" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand report" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand report" -l metrics-bind-address -d 'Where the metrics server listens' -r
complete -c proxier -n "__fish_proxier_using_subcommand report" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_using_subcommand version" -s o -l output -d 'How to print: table or json' -r -f -a "table\t'Tables for people'
json\t'JSON'
yaml\t'YAML (get)'
wide\t'The table with more columns (get)'
name\t'Names alone, one a line (get)'
ipvsadm\t'Virtual and real servers as `ipvsadm-save -n` prints them'
addresses\t'Addresses of kube-ipvs0 as `ip addr` prints them'
ipset\t'Sets as `ipset save` prints them'
iptables\t'IPv4 rules as `iptables-save` prints them'
ip6tables\t'IPv6 rules as `ip6tables-save` prints them'
nftables\t'The tables of the backend nftables as `nft list table` prints them'
sysctls\t'Kernel settings as `sysctl` prints them'
all\t'All of them, one after the other'"
complete -c proxier -n "__fish_proxier_using_subcommand version" -s h -l help -d 'Print help'
complete -c proxier -n "__fish_proxier_using_subcommand completion" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c proxier -n "__fish_proxier_using_subcommand cleanup" -s h -l help -d 'Print help'
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l to -d 'The mode of that kube-proxy' -r -f -a "nftables\t'nftables mode'
iptables\t'iptables mode'"
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l manifests -d 'Read Services, EndpointSlices, Endpoints and Nodes from a file, a folder or - for standard input instead of a cluster (repeatable; folders are watched)' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l node-address -d 'An address this node has on its other interfaces (repeatable; default: read from the host)' -r
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l drain-timeout -d 'How long a removed real server may keep its open connections; 0 cuts them at once' -r
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l config -d 'Configuration file (KubeProxyConfiguration v1alpha1, YAML or JSON); replaces most other flags' -r -F
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l master -d 'Address of the API server, in place of the kubeconfig\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l hostname-override -d 'Name of this node, if it is not the host\'s' -r
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -l kubeconfig -d 'How to reach the API server; default: the service account of the pod' -r
complete -c proxier -n "__fish_proxier_using_subcommand hand-over" -s h -l help -d 'Print help (see more with \'--help\')'
