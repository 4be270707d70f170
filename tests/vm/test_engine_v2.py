"""The engine on cgroup v2 and Debian's own kernel: of the tests of tests/integration those in which the kernel's
groups, its network or an older overlayfs have a say."""

import harness
import test_adoption
import test_create
import test_engine
import test_manage
import test_networks
import test_supervision
import test_userns

harness.only(
    test_engine.limits_reach_the_kernel,
    test_engine.a_container_out_of_memory_says_so,
    test_engine.published_ports_are_reached_from_everywhere,
    test_engine.a_commit_holds_what_the_container_did_and_nothing_else,
    test_create.limits_reach_their_control_files,
    test_create.limits_change_while_it_runs,
    test_create.a_cgroup_parent_of_ones_own,
    test_create.namespaces_of_the_machine_and_of_others,
    test_manage.paused_processes_stand_still_until_they_are_let_go,
    test_manage.what_stands_still_can_be_ended,
    test_manage.statistics_count_what_a_container_uses,
    test_networks.containers_find_each_other_by_name,
    test_networks.networks_are_isolated,
    test_supervision.a_container_is_restarted_and_counted,
    test_supervision.restarts_go_on_without_a_daemon_and_are_adopted,
    test_adoption.a_killed_monitor_ends_its_container,
    test_userns.a_container_has_users_of_its_own,
    test_userns.volumes_are_shared_and_binds_are_the_machines,
)

if __name__ == "__main__":
    harness.main()
