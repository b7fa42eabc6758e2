"""The URL is the filter."""

from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from wavegate_server.adapters.reads.fleet import DeviceFilter, Health
from wavegate_server.web.filters import FleetView, fleet_view

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Z", "C"), exclude_characters=":"), min_size=1, max_size=12
)


@given(
    st.builds(
        DeviceFilter,
        text=st.just("") | TEXT,
        health=st.none() | st.sampled_from(Health),
        hardware_class=st.none() | TEXT,
        site=st.none() | TEXT,
        model=st.just("m"),
        version=st.none() | st.integers(1, 10**6),
    )
)
def test_a_view_is_its_url(chosen: DeviceFilter) -> None:
    view = FleetView(chosen, "c")
    assert fleet_view(QueryParams(view.here().partition("?")[2])) == view


def test_empty_filters_leave_no_trace() -> None:
    assert fleet_view({"q": "", "health": "", "class": "", "version": ""}).here() == "/fleet"


def test_what_does_not_parse_is_left_out() -> None:
    view = fleet_view({"health": "excellent", "version": "m:x" + "9" * 40})
    assert view.chosen == DeviceFilter(model="m")
    assert not fleet_view({}).active


def test_a_change_goes_back_to_the_first_page() -> None:
    assert FleetView(DeviceFilter(text="a"), "c").url(site="x") == "/fleet?q=a&site=x"
