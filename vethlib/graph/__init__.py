"""Pictures of namespaces and the pairs between them: SVG, Graphviz and Mermaid. Pure text, from values.

graph = Graph((Box("ns1"), Box("ns2")), (Edge(Port("ns1", "veth1"), Port("ns2", "veth2")),))
Path("net.svg").write_text(svg(graph))
"""

from .dot import dot
from .mermaid import mermaid
from .model import Box, Edge, Graph, Mood, Port
from .svg import svg

__all__ = ["Box", "Edge", "Graph", "Mood", "Port", "dot", "mermaid", "svg"]
