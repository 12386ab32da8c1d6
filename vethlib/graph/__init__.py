"""Diagrams of namespaces and the pairs between them, as SVG, Graphviz or Mermaid text. Pure.

graph = Graph((Box("ns1"), Box("ns2")), (Edge(Port("ns1", "veth1"), Port("ns2", "veth2")),))
Path("net.svg").write_text(svg(graph))
"""

from .dot_text import dot
from .mermaid_text import mermaid
from .model import Box, Edge, Graph, Mood, Port
from .svg_text import svg

__all__ = ["Box", "Edge", "Graph", "Mood", "Port", "dot", "mermaid", "svg"]
