"""How large a cluster must be, how long it takes and what it costs: the formulas of docs/scale.md.

    python -m benchmarks.sizing --images 1e8 --hours 24 --cpu-ms 28 --gpu-ms 0

Measured costs and prices go in, nodes, hours, dollars and requests come out; nothing is fetched.
"""

import math
from dataclasses import dataclass

import tyro

from lib.scoring.rows import LARGEST_BLOCK

AHEAD = 1.25
"""CPUs on machines of their own work this much faster than the GPUs, so that no GPU waits."""
LISTED = 1000
"""Keys that one LIST request gives."""
LISTS_A_SECOND = 1
"""At most, for the progress: a tenth of the time at 100 ms a request (see `lib.common.progress`)."""


@dataclass(frozen=True)
class Options:
    """Size a cluster.

    Attributes:
        images: Of the archive.
        hours: When it should be done.
        image_kb: Size of an image on average, in kilobytes.
        cpu_ms: Milliseconds of one CPU for an image; without GPUs those of the models, too.
        gpu_ms: Milliseconds of one GPU for an image; 0: the models run on the CPUs.
        images_per_get: Images that one GET request reads: 1 of single objects, more of tar shards.
        cpu_node_cpus: CPUs of a machine without a GPU.
        cpu_node_gbit: Network of such a machine, in gigabits a second.
        cpu_node_dollars: Price of such a machine for an hour.
        gpu_node_dollars: Price of a machine with one GPU for an hour.
        get_dollars: Price of 1,000 GET requests.
        put_dollars: Price of 1,000 PUT, COPY or LIST requests.
        puts_per_file: PUT requests for one file of labels.
    """

    images: float = 1e6
    hours: float = 1.0
    image_kb: float = 200.0
    cpu_ms: float = 28.0
    gpu_ms: float = 0.0
    images_per_get: float = 1.0
    cpu_node_cpus: int = 16
    cpu_node_gbit: float = 6.0
    cpu_node_dollars: float = 0.30
    gpu_node_dollars: float = 1.00
    get_dollars: float = 0.0004
    put_dollars: float = 0.005
    puts_per_file: int = 1


@dataclass(frozen=True)
class Size:
    """What a run needs.

    Attributes:
        images_per_second: of all machines.
        cpu_nodes: machines without a GPU.
        gpu_nodes: machines with one.
        hours: that they work.
        machine_dollars: for these hours.
        gets: GET requests.
        puts: PUT, COPY and LIST requests.
        request_dollars: for both.
        node_gbit: what each machine without a GPU reads, in gigabits a second.
        gets_per_second: of all machines.
        files: of labels, before they are compacted.
        driver_gb: memory for what is known of each image: a byte whether it is done, and five at the
            end, when rows are counted.
    """

    images_per_second: float
    cpu_nodes: int
    gpu_nodes: int
    hours: float
    machine_dollars: float
    gets: float
    puts: float
    request_dollars: float
    node_gbit: float
    gets_per_second: float
    files: float
    driver_gb: float


def size(options: Options) -> Size:
    """Apply the formulas."""
    wanted = options.images / options.hours / 3600
    ahead = AHEAD if options.gpu_ms else 1.0
    node_rate = options.cpu_node_cpus * 1000 / options.cpu_ms
    cpu_nodes = math.ceil(ahead * wanted / node_rate)
    gpu_nodes = math.ceil(wanted * options.gpu_ms / 1000)
    rate = cpu_nodes * node_rate / ahead
    if options.gpu_ms:
        rate = min(rate, gpu_nodes * 1000 / options.gpu_ms)
    hours = options.images / rate / 3600
    files = options.images / LARGEST_BLOCK
    gets = options.images / options.images_per_get
    puts = files * options.puts_per_file + gets / LISTED + hours * 3600 * LISTS_A_SECOND
    return Size(
        images_per_second=rate,
        cpu_nodes=cpu_nodes,
        gpu_nodes=gpu_nodes,
        hours=hours,
        machine_dollars=hours
        * (cpu_nodes * options.cpu_node_dollars + gpu_nodes * options.gpu_node_dollars),
        gets=gets,
        puts=puts,
        request_dollars=(gets * options.get_dollars + puts * options.put_dollars) / 1000,
        node_gbit=rate / cpu_nodes * options.image_kb * 8 / 1e6,
        gets_per_second=rate / options.images_per_get,
        files=files,
        driver_gb=options.images * 5 / 1e9,
    )


def row(options: Options) -> str:
    """One line of the table of docs/scale.md."""
    s = size(options)
    return (
        f"| {options.images:,.0f} | {s.images_per_second:,.0f} | {s.cpu_nodes:,} | {s.gpu_nodes:,} "
        f"| {s.hours:,.1f} | {s.machine_dollars:,.0f} | {s.gets:,.0f} | {s.puts:,.0f} "
        f"| {s.request_dollars:,.0f} | {s.gets_per_second:,.0f} | {s.node_gbit:.2f} | {s.files:,.0f} "
        f"| {s.driver_gb:,.3g} |"
    )


HEADER = (
    "| images | images/s | CPU nodes | GPU nodes | hours | $ machines | GETs | PUTs, LISTs "
    "| $ requests | GETs/s | Gbit/s a node | label files | GB on the head |"
)


def main() -> None:
    """Print the table's line for the options."""
    print(HEADER)
    print("|" + " --- |" * HEADER.count(" | ") + " --- |")
    print(row(tyro.cli(Options)))


if __name__ == "__main__":
    main()
