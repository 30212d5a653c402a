"""What stands above every page: what it shows in words for everybody, the notions on request, and the tour."""

from collections.abc import Callable, Mapping, Sequence

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from horinsight.viewer.service import page
from horinsight.viewer.service.tour import STEPS, go_to, tour_step

SENTENCES: Mapping[str, str] = {
    "": "horinsight shows how positions act on each other in a vision network: red places push the boxed one's feature "
    "up, blue down.",
    "blocks": "Where one position looks, in every block from the first to the last: red places push its feature up, "
    "blue ones pull it down. Orders: which places act on it jointly.",
    "spectra": "How many neighbours act jointly with a position, more than one by one: the brighter a cell, the "
    "stronger; 0 is exactly nothing.",
    "attribution": "Which places of the picture spoke for an answer of the whole network, red, and which against it, "
    "blue.",
    "cost": "What the network computes for one picture, part by part, and how far below the bound that the paper "
    "promises.",
    "compare": "Two networks or two pictures, A and B: red places push the boxed position's feature up, blue down; "
    "B − A says where B looks more.",
    "results": "What was measured and saved before, opened again: one result, or two of a kind and what they differ "
    "by.",
    "filters": "The filters that a network has learned, in space and in frequency, before it sees any picture.",
    "classes": "How networks look at pictures of one class and of another, as means over many pictures.",
    "paper": "What the paper prints, beside what this program counts and measures.",
}


def mixing_words() -> None:
    """What h_ij is."""
    st.markdown("**Mixing weights.** A block writes the new feature of position $i$ as a sum over all positions $j$:")
    st.latex(r"p_n^{(i,c)} = \sum_j h_{ij}^c \, v^{(j,c)} + b_i^c \qquad \text{(Eq. 3.8)}")
    st.markdown(
        "$v$ is what position $j$ offers in channel $c$, and $h_{ij}^c$ how much of it position $i$ takes: positive is "
        "red, negative blue, outside of the kernel or window it is 0. For gⁿConv $h$ is the kernel times a gate that "
        "the picture opens at $i$, for attention the softmax, for a plain convolution the kernel alone, alike "
        "everywhere. Shown is the mean over the channels, or one of them."
    )


def spectra_words() -> None:
    """What effect and order are."""
    st.markdown("**Effect.** How much $k$ neighbours do *together* to position $i$ that no fewer of them would do:")
    st.latex(r"D_k = \frac{\partial^{\,k+1} F(x + \sum_t \varepsilon_t\, e_{j_t} \otimes v_t)_i}"
             r"{\partial\varepsilon_0 \cdots \partial\varepsilon_k}\Big|_0 \qquad"
             r"\mathrm{effect}_k = \frac{\sqrt{\mathbb{E}\,|D_k|^2 / C'}}{\mathrm{std}(F)}")  # fmt: skip
    st.markdown(
        "The mean is over pictures, positions $i = j_0$, *chains* of neighbours $j_1 \\ldots j_k$ and directions "
        "$v_t$, which vary as the features do. $k = 0$ is the plain response.\n\n"
        "**Order.** The largest $k$ whose effect is not exactly 0. **Degree**: the same with all positions moved at "
        "once, which is the degree of a polynomial, less one.\n\n"
        "**Explicit**: each non-linearity is replaced by its tangent, and what is left comes from how the block is "
        "built. **Functional**: they stay, and most orders have no end. **Chains**: how many are drawn; more make the "
        "numbers surer and take longer."
    )


def attribution_words() -> None:
    """What an attribution is."""
    st.markdown(
        "**Attribution** shares the answer out among the places of the picture. The methods share by different rules "
        "and disagree, so their maps are tested: as the strongest places come (*insertion*) the probability should "
        "rise fast, as they go (*deletion*) it should fall fast. Maps that never saw the network are the controls.\n\n"
        "A **position** may be explained instead of a class: what the feature of a block at $i$ takes from the picture."
    )


def cost_words() -> None:
    """What is counted."""
    st.markdown(
        "**Cost** of a gⁿConv on $H \\times W$ positions with $C$ channels and $K \\times K$ kernels, any order $n$:"
    )
    st.latex(
        r"\mathrm{FLOPs}(g^n\mathrm{Conv}) < HWC \left( 2K^2 + \tfrac{11}{3} C + 2 \right) \qquad \text{(Eq. 3.6)}"
    )
    st.markdown(
        "Counted are multiply-accumulates (**MACs**): one multiplication with its addition. More orders come closer to "
        "the bound and never reach it, because the first steps work on $C/2^{n-1}$ channels only."
    )


def weights_words() -> None:
    """Where trained weights come from."""
    st.markdown(
        "**Trained weights.** `hornet_digits_iso` comes trained; all other models start with random weights, which "
        "show how they are built and not what they have learned. Nothing is downloaded by itself: put weights into a "
        "folder, the paper's published checkpoints, timm's files or what `horinsight train` makes, and start "
        "`horinsight viewer --checkpoints FOLDER`. A choice of weights then appears below the model."
    )


WORDS: Mapping[str, Callable[[], None]] = {
    "": mixing_words,
    "blocks": mixing_words,
    "compare": mixing_words,
    "spectra": spectra_words,
    "attribution": attribution_words,
    "cost": cost_words,
}


def page_links(pages: Sequence[StreamlitPage], path: str) -> None:
    """The pages by name on a telephone, where the navigation at the top is folded away.

    Args:
        pages: all of them.
        path: of the one that is shown, which is scrolled to.
    """
    with st.container(horizontal=True, gap="small", key="page_links"):
        for place, one in enumerate(pages):
            with st.container(width="content", key="page_here" if one.url_path == path else f"page_{place}"):
                st.page_link(one)


def lead(path: str, title: str, *, in_bar: bool) -> None:
    """The sentence of a page, its notions, and the tour, where it is open in place of the sentence.

    Args:
        path: of the page.
        title: of the page.
        in_bar: whether the bar of pages shows that title already, where there is room for it.
    """
    step = tour_step()
    if step:
        tour_card(step, path)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="lead"):
        st.html(
            '<div class="lead">'
            f"<h1{' class=in_bar' if in_bar else ''}>{page.plain(title)}.</h1> "
            f"{page.plain(SENTENCES.get(path, ''))}</div>"
        )
        with st.popover("What is this?", type="tertiary", icon=":material/help:"):
            st.markdown(
                "**horinsight** measures how positions of vision networks act on each other: where each looks, how "
                "many act together, and what that costs."
            )
            WORDS.get(path, mixing_words)()
            weights_words()
            st.button("Start the tour", icon=":material/explore:", key="tour_start", on_click=go_to, args=(1,))
        st.button("Tour", icon=":material/explore:", type="tertiary", key="tour_begin", on_click=go_to, args=(1,))


def tour_card(step: int, path: str) -> None:
    """One step of the tour, with the way on, back and out."""
    shown, last = STEPS[step - 1], len(STEPS)
    here = shown.page == path
    with st.container(border=True, key="tour_card"):
        title = shown.title if shown.title.endswith("?") else f"{shown.title}."
        text = shown.text if here else "You left the tour for this page. Go on where you were, or end it."
        st.html(
            f'<div class="lead" role="status"><h1>Tour, {step:d} of {last:d}: {page.plain(title)}</h1> '
            f"{page.plain(text, longest=2000)}</div>"
        )
        with st.container(horizontal=True, gap="small"):
            if not here:
                st.button("Go on", type="primary", key="tour_return", on_click=go_to, args=(step,))
            else:
                if step > 1:
                    st.button("Back", key="tour_back", on_click=go_to, args=(step - 1,))
                if step < last:
                    st.button("Next", type="primary", key="tour_next", on_click=go_to, args=(step + 1,))
            st.button("End", key="tour_end", type="secondary" if step < last else "primary", on_click=go_to, args=(0,))
