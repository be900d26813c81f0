"""Configs as MMRazor's and GML's documents show them."""

KD = """\
model = dict(
    _scope_='mmrazor',
    type='SingleTeacherDistill',
    architecture=dict(cfg_path='mmcls::resnet/resnet18_8xb32_in1k.py', pretrained=False),
    teacher=dict(cfg_path='mmcls::resnet/resnet34_8xb32_in1k.py', pretrained=False),
    teacher_ckpt=teacher_ckpt,
    teacher_trainable=False,
    teacher_norm_eval=True,
    student_trainable=True,
    calculate_student_loss=True,
    distiller=dict(
        type='ConfigurableDistiller',
        student_recorders=dict(
            fc=dict(type='ModuleOutputs', source='head.fc')),
        teacher_recorders=dict(
            fc=dict(type='ModuleOutputs', source='head.fc')),
        distill_losses=dict(
            loss_kl=dict(type='KLDivergence', tau=1, loss_weight=3)),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(from_student=True, recorder='fc'),
                preds_T=dict(from_student=False, recorder='fc')))))
"""
SURROUNDINGS = """\
_base_ = [
    'mmcls::_base_/datasets/imagenet_bs32.py',
    'mmcls::_base_/schedules/imagenet_bs256.py',
    'mmcls::_base_/default_runtime.py'
]
teacher_ckpt = 'F:\\\\模型权重\\\\resnet34.pth'
"""
AFTER = """\
find_unused_parameters = True

val_cfg = dict(_delete_=True, type='mmrazor.SingleTeacherDistillValLoop')
"""
KD_SECTIONS = {
    "student_recorders": {"fc": {"type": "ModuleOutputs", "source": "head.fc"}},
    "teacher_recorders": {"fc": {"type": "ModuleOutputs", "source": "head.fc"}},
    "distill_losses": {"loss_kl": {"type": "KLDivergence", "tau": 1, "loss_weight": 3}},
    "loss_forward_mappings": {
        "loss_kl": {
            "preds_S": {"from_student": True, "recorder": "fc"},
            "preds_T": {"from_student": False, "recorder": "fc"},
        }
    },
}

OFD = """\
norm_cfg = dict(type='BN')
model = dict(
    type='mmrazor.OverhaulFeatureDistillation',
    distiller=dict(
        type='OFDDistiller',
        student_recorders=dict(bb_1=dict(type='ModuleOutputs', source='backbone.layer2.0.bn1')),
        teacher_recorders=dict(bb_1=dict(type='ModuleOutputs', source='backbone.layer2.0.bn1')),
        distill_losses=dict(loss_1=dict(type='OFDLoss', loss_weight=0.25)),
        connectors=dict(
            loss_1_sfeat=dict(
                type='ConvModuleConncetor',
                in_channel=32,
                out_channel=64,
                norm_cfg=norm_cfg,
                act_cfg=None),
            loss_1_tfeat=dict(type='OFDTeacherConnector')),
        loss_forward_mappings=dict(
            loss_1=dict(
                s_feature=dict(from_student=True, recorder='bb_1', connector='loss_1_sfeat'),
                t_feature=dict(from_student=False, recorder='bb_1', connector='loss_1_tfeat'),
            ))))
"""
OFD_KEYS = {
    "student_recorders": {"bb_1": {"type": "ModuleOutputs", "source": "backbone.layer2.0.bn1"}},
    "teacher_recorders": {"bb_1": {"type": "ModuleOutputs", "source": "backbone.layer2.0.bn1"}},
    "distill_losses": {"loss_1": {"type": "OFDLoss", "loss_weight": 0.25}},
    "connectors": {
        "loss_1_sfeat": {
            "type": "ConvModuleConnector",
            "in_channel": 32,
            "out_channel": 64,
            "norm_cfg": {"type": "BN"},
            "act_cfg": None,
        },
        "loss_1_tfeat": {"type": "OFDTeacherConnector"},
    },
    "loss_forward_mappings": {
        "loss_1": {
            "s_feature": {"from_student": True, "recorder": "bb_1", "connector": "loss_1_sfeat"},
            "t_feature": {"from_student": False, "recorder": "bb_1", "connector": "loss_1_tfeat"},
        }
    },
    "teacher_mode": "norm_eval",
}

NECK = """\
distill_losses = dict(
    loss_neck=dict(type='L2Loss', loss_weight=5))
student_recorders = dict(
    feat = dict(type='ModuleOutputs', source='neck.gap'))
teacher_recorders = dict(
    feat = dict(type='ModuleOutputs', source='neck.gap'))
loss_forward_mappings = dict(
    loss_neck=dict(
        s_feature=dict(from_recorder='feat', from_student=True,
                       connector='loss_neck_sfeat'),
        t_feature=dict(from_recorder='feat', from_student=False,
                       connector='loss_neck_tfeat')))
"""
NECK_KEYS = {
    "distill_losses": {"loss_neck": {"type": "L2Loss", "loss_weight": 5}},
    "student_recorders": {"feat": {"type": "ModuleOutputs", "source": "neck.gap"}},
    "teacher_recorders": {"feat": {"type": "ModuleOutputs", "source": "neck.gap"}},
    "loss_forward_mappings": {
        "loss_neck": {
            "s_feature": {"recorder": "feat", "from_student": True, "connector": "loss_neck_sfeat"},
            "t_feature": {"recorder": "feat", "from_student": False, "connector": "loss_neck_tfeat"},
        }
    },
}

LAD = """\
distill_deliveries = ConfigDict(
    delivery1=dict(
        type='MethodOutputs',
        max_keep_data=100,
        method_path='mmdet.models.dense_heads.paa_head.PAAHead.paa_reassign'),
    delivery2=dict(
        type='MethodOutputs',
        max_keep_data=100,
        method_path='mmdet.models.dense_heads.paa_head.PAAHead.get_targets'))
"""
PAA = "mmdet.models.dense_heads.paa_head.PAAHead"
LAD_KEYS = {
    "distill_deliveries": {
        "delivery1": {"type": "MethodOutputs", "max_keep_data": 100, "method_path": f"{PAA}.paa_reassign"},
        "delivery2": {"type": "MethodOutputs", "max_keep_data": 100, "method_path": f"{PAA}.get_targets"},
    }
}

MIXUP = """\
augments_cfg = dict(type='BatchMixup', alpha=1., num_classes=10, prob=1.0)
distill_deliveries = [
    ConfigDict(type='MethodOutputs', max_keep_data=1,
               method_path='mmcls.models.utils.Augments.__call__')]
"""
MIXUP_KEYS = {
    "distill_deliveries": [
        {"type": "MethodOutputs", "max_keep_data": 1, "method_path": "mmcls.models.utils.Augments.__call__"}
    ]
}

RECORDERS = """\
conv1_rec = ConfigDict(type='ModuleOutputs', source='conv1')
func_rec = ConfigDict(type='MethodOutputs', source='toy_module.Toy.toy_func')
student_recorders = {'conv1_rec': conv1_rec, 'func_rec': func_rec}
"""
RECORDERS_KEYS = {
    "student_recorders": {
        "conv1_rec": {"type": "ModuleOutputs", "source": "conv1"},
        "func_rec": {"type": "MethodOutputs", "source": "toy_module.Toy.toy_func"},
    }
}

CUSTOM = """\
custom_imports = dict(
    imports=['json.decoder'],
    allow_failed_imports=False)
algorithm = dict(
    type='Distill',
    distiller=dict(
        type='SingleTeacherDistill',
        student_recorders=dict(fc=dict(type='ModuleOutputs', source='head.fc'))),
)
"""
CUSTOM_KEYS = {
    "student_recorders": {"fc": {"type": "ModuleOutputs", "source": "head.fc"}},
    "teacher_mode": "norm_eval",
}

GML = """\
custom_imports = dict(
    imports=[
        'json.decoder',
    ])
_base_ = [
    './_base_/cifar10_bs16.py',
]

# model settings
model = dict(
    type='mmcls.ImageClassifier',
    head=dict(
        type='LinearClsHead',
    ))

# 从这里到文件尾，都是蒸馏相关的设置
teacher = [
    dict(
        ckpt_path='./work_dirs/resnet50_b16x8_cifar10_best.pth',
        model=dict(
            type='mmcls.ImageClassifier',
            backbone=dict(type='ResNet', depth=50)),
        distill_cfg=[
            dict(
                student_module='backbone.layer4.1.conv2',
                teacher_module='backbone.layer4.2.conv3',
                head=dict(
                    type='FeatureDistillationHead',
                    loss=dict(
                        type='MyLoss',
                        loss_weight=0.05,
                    ),
                ))
        ])
]
"""
GML_KEYS = {
    "pairs": [
        {
            "student": "backbone.layer4.1.conv2",
            "teacher": "backbone.layer4.2.conv3",
            "loss": {"type": "MyLoss", "loss_weight": 0.05},
        }
    ],
    "teacher_ckpt": "./work_dirs/resnet50_b16x8_cifar10_best.pth",
}
